"""Logins to registries."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import NotAuthenticatedError, Scope, principal_of
from services.gateway.logins import (
    LoginRefusedError,
    Logins,
    LoginUncheckedError,
    TooManyLoginsKeptError,
)
from shared.api import API, LoginRequest, LoginsView, LoginView
from shared.catalog.records import LoginRecord
from shared.errors import DeadlineExceededError, NotFoundError
from shared.http.answers import answer, read_body
from shared.http.operation import operation
from shared.models import Strict

NEVER_KEPT = {"Cache-Control": "no-store"}


class LoginPath(Strict):
    """/logins/{registry}."""

    registry: Annotated[str, Field(max_length=255)]


class LoginHandlers:
    """A user's own, and nobody else's."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{API}/logins", self.log_in),
            web.get(f"{API}/logins", self.list_logins),
            web.delete(f"{API}/logins/{{registry}}", self.log_out),
        ]

    @operation(
        body=LoginRequest,
        gives={200: LoginView},
        problems=(
            NotAuthenticatedError,
            LoginRefusedError,
            LoginUncheckedError,
            TooManyLoginsKeptError,
            DeadlineExceededError,
        ),
        needs="identity",
    )
    async def log_in(self, request: web.Request) -> web.Response:
        """Log in to a registry.

        The registry is asked at once. If it takes user name and password, they are kept, sealed,
        for your pulls from it, until the login expires.
        """
        principal = principal_of(request)
        principal.require(Scope.PULL)
        wanted = await read_body(request, LoginRequest)
        return answer(_view(await self._logins.log_in(principal, wanted)), headers=NEVER_KEPT)

    @operation(gives={200: LoginsView}, problems=(NotAuthenticatedError,), needs="identity")
    async def list_logins(self, request: web.Request) -> web.Response:
        """The registries that you are logged in to."""
        records = await self._logins.of(principal_of(request))
        view = LoginsView(items=tuple(_view(record) for record in records))
        return answer(view, headers=NEVER_KEPT)

    @operation(
        path=LoginPath,
        gives={204: None},
        problems=(NotAuthenticatedError, NotFoundError),
        needs="identity",
    )
    async def log_out(self, request: web.Request) -> web.Response:
        """Forget a login.

        Pulls that are under way keep what they have until they end.
        """
        principal = principal_of(request)
        principal.require(Scope.PULL)
        await self._logins.log_out(principal, request.match_info["registry"])
        return web.Response(status=204)


def _view(record: LoginRecord) -> LoginView:
    return LoginView(
        registry=record.registry,
        username=record.username,
        checked_at=record.checked_at or record.updated_at,
        expires_at=record.expires_at,
    )
