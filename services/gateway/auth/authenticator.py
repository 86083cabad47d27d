"""Who sent a request: a credential that it brings, else the kernel's word, else nobody.

A credential that is brought and is no good is an error, never a reason to go on as somebody else.
"""

from types import MappingProxyType
from typing import Final

from aiohttp import hdrs, web

from services.gateway.auth.authority import Authority
from services.gateway.auth.identity import NotAuthenticatedError, Principal
from services.gateway.auth.locations import parse_locations
from services.gateway.auth.munge import MungeUsers
from services.gateway.auth.peers import from_network, peer_of
from services.gateway.auth.tokens import Tokens
from shared.api import API

MUNGE: Final = "munge"
BEARER: Final = "bearer"
SHIFTER_HEADER: Final = "authentication"
"""In which Shifter's client sends its MUNGE credential, bare."""


class UnknownSchemeError(NotAuthenticatedError):
    """The Authorization header is none that this gateway understands."""

    code = "unknown_scheme"


class Authenticator:
    """Asks whoever can tell."""

    def __init__(self, authority: Authority, munge: MungeUsers, tokens: Tokens) -> None:
        self._authority = authority
        self._munge = munge
        self._tokens = tokens

    def at_hand(self, request: web.Request) -> Principal | None:
        """Whoever is known without waiting, as for most requests; None: `principal` asks."""
        headers = request.headers
        if hdrs.AUTHORIZATION in headers:
            token = _token(headers.getall(hdrs.AUTHORIZATION))
            if token is None:
                return None
            return self._authority.bearer_at_hand(self._tokens.read(token))
        if SHIFTER_HEADER in headers:
            return None
        if from_network(request):
            return self._authority.public
        peer = peer_of(request)
        return None if peer is None else self._authority.peer_at_hand(peer.uid, peer.gid)

    async def principal(self, request: web.Request) -> Principal:
        if hdrs.AUTHORIZATION in request.headers:
            return await self._authorized(request.headers.getall(hdrs.AUTHORIZATION))
        if not request.path.startswith(f"{API}/") and SHIFTER_HEADER in request.headers:
            return await self._by_munge(request.headers[SHIFTER_HEADER])
        peer = peer_of(request)
        if peer is not None:
            return await self._authority.user(peer.uid, peer.gid, "socket", MappingProxyType({}))
        return self._authority.public

    async def _authorized(self, headers: list[str]) -> Principal:
        if (token := _token(headers)) is not None:
            return await self._authority.bearer(self._tokens.read(token))
        scheme, _, credential = headers[0].partition(" ")
        if len(headers) == 1 and scheme.lower() == MUNGE:
            return await self._by_munge(credential)
        raise UnknownSchemeError(
            "send one Authorization header: 'MUNGE CREDENTIAL', or 'Bearer TOKEN' with what "
            "`dray token` prints"
        )

    async def _by_munge(self, credential: str) -> Principal:
        found = await self._munge.decode(credential)
        logins = parse_locations(found.payload)
        return await self._authority.user(found.uid, found.gid, "munge", logins)


def _token(headers: list[str]) -> str | None:
    """Of the Authorization headers of one request, if that is what they bring."""
    scheme, _, credential = headers[0].partition(" ")
    return credential.strip() if len(headers) == 1 and scheme.lower() == BEARER else None
