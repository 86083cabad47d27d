"""Puts a principal into every request."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.gateway.auth.identity import PRINCIPAL, Principal, Scope


def authentication_middleware() -> Middleware:
    """Whoever reaches the gateway is the public."""
    public = Principal("anonymous", frozenset((Scope.READ, Scope.PULL)), via="nobody")

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[PRINCIPAL] = public
        return await handler(request)

    return middleware
