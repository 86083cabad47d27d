"""An application behind the gateway's front, with users that a test makes up."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from services.gateway.auth.identity import Principal, Scope
from services.gateway.front import Front, KnowsWhoAsks
from services.gateway.limits import Limits
from shared.http.connections import Connections
from shared.http.guard import Guard
from shared.http.server import HttpServer
from shared.http.time_limit import TimeLimit

ANYBODY = Principal("anybody", frozenset({Scope.READ}), "nobody")


class Everybody:
    """All requests are of the same one, who may read."""

    def at_hand(self, _request: web.Request) -> Principal | None:
        return ANYBODY

    async def principal(self, _request: web.Request) -> Principal:
        return ANYBODY


@asynccontextmanager
async def behind_front(
    routes: Iterable[web.RouteDef],
    *,
    who: KnowsWhoAsks | None = None,
    names: Iterable[str] = (),
    limits: Limits | None = None,
    seconds: float = 5.0,
    most_connections: int = 100,
    first_request: float = 5.0,
) -> AsyncIterator[str]:
    """Serves them for a while; yields the address."""
    connections = Connections(most_connections, frozenset(), first_request)
    front = Front(
        Guard(names),
        who or Everybody(),
        limits or Limits(1000, 1000, 10),
        TimeLimit(seconds),
        connections,
    )
    app = web.Application(middlewares=[front.middleware])
    app.add_routes(routes)
    server = HttpServer(app, "127.0.0.1:0", connections=connections)
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop()
