"""The API's own description: for programs, and for people."""

import json
from collections.abc import Callable, Iterable

from aiohttp import web

from services.gateway.lookups import etag_of
from services.gateway.openapi import describe
from services.gateway.web.pages import page
from shared.api import API
from shared.http.conditional import conditional
from shared.http.operation import operation

VERSION = "1"


class DocsHandlers:
    """Made once, of the routes as they are when somebody asks first."""

    def __init__(self, routes: Callable[[], Iterable[web.AbstractRoute]]) -> None:
        self._routes = routes
        self._made: tuple[bytes, str] | None = None
        self._page = page("docs.html")

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/openapi.json", self.show_description),
            web.get(f"{API}/docs", self.show_page),
        ]

    @operation(gives={200: "application/json"}, etag=True)
    async def show_description(self, request: web.Request) -> web.Response:
        """This description, as OpenAPI 3.1."""
        if self._made is None:
            body = json.dumps(describe(self._routes(), VERSION), ensure_ascii=False).encode()
            self._made = body, etag_of(body)
        return conditional(request, *self._made)

    @operation(gives={200: "text/html"})
    async def show_page(self, request: web.Request) -> web.StreamResponse:
        """This description, as a page for people."""
        return await self._page(request)
