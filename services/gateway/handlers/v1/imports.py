"""Imports: asked for here, followed like pulls."""

from typing import Final
from urllib.parse import quote

from aiohttp import web

from services.gateway.auth.identity import NotAuthenticatedError, principal_of
from services.gateway.handlers.v1.pulls import named_readers
from services.gateway.imports import Import, ImportNotAllowedError, Imports
from services.gateway.pulls import Pulls
from services.gateway.quotas import QuotaExceededError
from services.gateway.views import pull_view
from services.gateway.wishes import ImportUnderWayError, NameTakenError
from shared.api import API, ImportRequest, PullView
from shared.errors import ConflictError, UnknownSystemError
from shared.http.answers import answer, read_body
from shared.http.operation import operation
from shared.states import State

AUTO: Final = "auto"


class ImportHandlers:
    """Thin: what an import is, and whose, stands elsewhere."""

    def __init__(self, pulls: Pulls, imports: Imports) -> None:
        self._pulls = pulls
        self._imports = imports

    def routes(self) -> list[web.RouteDef]:
        return [web.post(f"{API}/imports", self.start_import)]

    @operation(
        body=ImportRequest,
        gives={200: PullView, 202: PullView},
        problems=(
            NotAuthenticatedError,
            ImportNotAllowedError,
            QuotaExceededError,
            UnknownSystemError,
            ImportUnderWayError,
            NameTakenError,
            ConflictError,
        ),
        headers={"Location": "Where to ask how far it is."},
        needs="identity",
    )
    async def start_import(self, request: web.Request) -> web.Response:
        """Make an image of a file that you may read.

        200: it is READY, and the file has not changed since. 202: it is on its way, and is followed
        like a pull. Its name gets the type `custom`: `custom:load_test:v1`.
        """
        principal = principal_of(request)
        wanted = await read_body(request, ImportRequest)
        target = self._pulls.target(wanted.system, "custom", wanted.name)
        asked = Import(
            path=wanted.path,
            format=None if wanted.format == AUTO else wanted.format,
            image=wanted.image,
            public=wanted.public,
            force=wanted.force,
            readers=named_readers(wanted),
        )
        record = await self._imports.request(target, principal, asked)
        location = {"Location": f"{API}/pulls/{quote(record.pull_id)}"}
        return answer(pull_view(record), 200 if record.state is State.READY else 202, location)
