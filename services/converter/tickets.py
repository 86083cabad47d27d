"""Fetches a user's registry password from a gateway, for the ticket that came in an event."""

from typing import Final, Literal
from urllib.parse import urlsplit

import aiohttp
from pydantic import ValidationError

from services.converter.registry.endpoint import Credentials
from shared.api import TICKETS, TicketRequest, TicketView
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.settings.types import is_loopback

_SECONDS: Final = 15.0
_MOST_BYTES: Final = 64 << 10
_REFUSED: Final = 410


class TicketSpentError(DrayError):
    """The attempt is over, or another worker has it: nothing is to be done for this event."""

    code = "ticket_spent"


class GatewayUnreachableError(DrayError):
    """No gateway gives out the password that a pull needs."""

    code = "gateway_unreachable"
    status = 503
    retryable = True


class GatewayUnnamedError(DrayError):
    """It is not known where a gateway could be asked safely."""

    code = "gateway_unnamed"


class TicketOffice:
    """The gateway, as a converter knows it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def credentials(
        self, kind: Literal["pull", "login"], key: str, ticket: str, deadline: Deadline
    ) -> Credentials:
        """What the registry wants to hear; the ticket is spent then."""
        url, connector = self._way()
        body = TicketRequest(kind=kind, key=key, ticket=ticket).model_dump_json().encode()
        deadline = deadline.sooner(_SECONDS)
        try:
            async with (
                deadline.bound("asking the gateway for a password"),
                aiohttp.ClientSession(connector=connector) as session,
                session.post(
                    f"{url}{TICKETS}",
                    data=body,
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                status, content = response.status, await response.content.read(_MOST_BYTES)
        except (aiohttp.ClientError, OSError) as exc:
            raise GatewayUnreachableError(
                f"the converter cannot reach the gateway at {url} for the pull's password "
                f"({type(exc).__name__}): the operator must look at converter.gateway"
            ) from exc
        if status == _REFUSED:
            raise TicketSpentError("the ticket for this attempt's password is no good any more")
        try:
            view = TicketView.model_validate_json(content) if status == 200 else None
        except ValidationError:
            view = None
        if view is None:
            raise GatewayUnreachableError(
                f"the gateway at {url} answers {status} when asked for a pull's password: the "
                "operator must look at converter.gateway, and at the gateway's log"
            )
        return Credentials(username=view.username, password=view.password)

    def _way(self) -> tuple[str, aiohttp.BaseConnector]:
        named = self._settings.converter.gateway
        if named is not None and not named.startswith("unix:"):
            return named.rstrip("/"), aiohttp.TCPConnector()
        socket = self._settings.gateway_socket
        if named is not None:
            return "http://localhost", aiohttp.UnixConnector(urlsplit(named).path)
        if socket.is_socket():
            return "http://localhost", aiohttp.UnixConnector(str(socket))
        host, _, port = self._settings.gateway.listen.rpartition(":")
        # One listens to every address, but calls a certain one.
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - compared
        if is_loopback(host.strip("[]")):
            return f"http://{host}:{port}", aiohttp.TCPConnector()
        raise GatewayUnnamedError(
            "the converter does not know where to ask for the pull's password without sending it "
            "in the clear: the operator must set converter.gateway, to https://… or unix:/…"
        )
