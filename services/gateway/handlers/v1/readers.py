"""Who may use an image of one's own."""

from typing import Annotated, get_args

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import (
    NotAllowedError,
    NotAuthenticatedError,
    Principal,
    Scope,
    principal_of,
)
from services.gateway.logins import uid_of
from services.gateway.pulls import Pulls
from services.gateway.transitions import PullTarget
from shared.api import API, ReadersRequest, ReadersView
from shared.catalog.records import ImageRecord, ImageType
from shared.errors import InvalidInputError, NotFoundError
from shared.events import Readers
from shared.http.answers import answer, read_body
from shared.http.operation import operation
from shared.imported import typed
from shared.models import Strict

PUBLIC = "the registry gives this image to everybody, and so everybody here may use it"


class ReadersPath(Strict):
    """/images/{system}/{type}/{reference}/readers."""

    system: Annotated[str, Field(max_length=63)]
    type: ImageType
    reference: Annotated[str, Field(max_length=512)]


class ReaderHandlers:
    """An owner's, and nobody else's. A path whose reference is not percent-encoded is cut here."""

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls

    def routes(self) -> list[web.RouteDef]:
        path = f"{API}/images/{{system}}/{{type}}/{{reference:.+}}/readers"
        return [web.get(path, self.show_readers), web.put(path, self.name_readers)]

    @operation(
        path=ReadersPath,
        gives={200: ReadersView},
        problems=(NotAuthenticatedError, NotAllowedError, NotFoundError),
        needs="identity",
    )
    async def show_readers(self, request: web.Request) -> web.Response:
        """Who may use an image of yours."""
        principal, target = self._asked(request)
        return answer(readers_view(await self._pulls.mine(target, principal)))

    @operation(
        path=ReadersPath,
        body=ReadersRequest,
        gives={200: ReadersView},
        problems=(NotAuthenticatedError, NotAllowedError, NotFoundError),
        needs="identity",
    )
    async def name_readers(self, request: web.Request) -> web.Response:
        """Say who may use a private image of yours, besides you.

        Whoever is not named any more loses it at once; a job that has it mounted goes on.
        """
        principal, target = self._asked(request)
        principal.require(Scope.PULL)
        wanted = await read_body(request, ReadersRequest)
        readers = Readers(uids=wanted.uids, gids=wanted.gids)
        return answer(readers_view(await self._pulls.name_readers(target, principal, readers)))

    def _asked(self, request: web.Request) -> tuple[Principal, PullTarget]:
        principal = principal_of(request)
        uid_of(principal)
        path = request.match_info
        if path["type"] not in get_args(ImageType):
            raise InvalidInputError("name the image by its reference, with docker or custom")
        system = None if path["system"] == "_" else path["system"]
        name = typed(path["type"], path["reference"])
        return principal, self._pulls.target(system, "docker", name)


def readers_view(record: ImageRecord) -> ReadersView:
    return ReadersView(
        owner=record.owner,
        private=record.private,
        uids=record.allowed_uids,
        gids=record.allowed_gids,
        warning=None if record.private else PUBLIC,
    )
