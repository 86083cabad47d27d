"""Serves the dashboard's files from memory, under a policy that lets nothing else in."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_PAGES = {
    "/": "index.html",
    "/web/style.css": "style.css",
    "/web/queue.js": "queue.js",
    "/web/docs.css": "docs.css",
    "/web/docs.js": "docs.js",
}


def page_routes() -> list[web.RouteDef]:
    return [web.get(path, page(name)) for path, name in _PAGES.items()]


def page(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Serves one of the files beside this module."""
    body = (files("services.gateway.web") / name).read_bytes()
    content_type = _TYPES[name.rpartition(".")[2]]

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers=_HEADERS, content_type=content_type, charset="utf-8")

    return serve
