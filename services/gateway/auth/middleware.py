"""Puts a principal into every request, and lets only those into the API who may read there."""

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from services.gateway.auth.authenticator import Authenticator
from services.gateway.auth.identity import PRINCIPAL, Scope

API_PATHS: Final = "/api/"
"""Of ours and of Shifter's. Pages, health and metrics hold nothing that is anybody's."""


def authentication_middleware(authenticator: Authenticator) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        principal = await authenticator.principal(request)
        request[PRINCIPAL] = principal
        if request.path.startswith(API_PATHS):
            principal.require(Scope.READ)
        return await handler(request)

    return middleware
