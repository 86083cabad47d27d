"""Who one is to the gateway, and tokens that say so for a while."""

from aiohttp import web

from services.gateway.auth.identity import Scope, principal_of
from services.gateway.auth.issue import TokenIssuer
from shared.api import API
from shared.api.account import TokenRequest, TokenView, WhoAmI
from shared.http.answers import answer, read_body
from shared.http.operation import operation

NEVER_KEPT = {"Cache-Control": "no-store"}


class AccountHandlers:
    """What concerns only who asks."""

    def __init__(self, issuer: TokenIssuer) -> None:
        self._issuer = issuer

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/whoami", self.who_am_i),
            web.post(f"{API}/tokens", self.make_token),
        ]

    @operation(gives={200: WhoAmI})
    async def who_am_i(self, request: web.Request) -> web.Response:
        """Who you are to the gateway, and what you may do."""
        principal = principal_of(request)
        view = WhoAmI(
            name=principal.name,
            uid=principal.uid,
            gids=tuple(sorted(principal.gids)),
            scopes=tuple(scope.value for scope in Scope if scope in principal.scopes),
            via=principal.via,
        )
        return answer(view, headers=NEVER_KEPT)

    @operation(body=TokenRequest, gives={201: TokenView}, needs="identity")
    async def make_token(self, request: web.Request) -> web.Response:
        """Make a token: for yourself, or, as an operator, for a service."""
        wanted = await read_body(request, TokenRequest)
        view: TokenView = self._issuer.issue(principal_of(request), wanted)
        return answer(view, 201, NEVER_KEPT)
