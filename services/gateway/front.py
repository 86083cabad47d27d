"""What every request goes through, in this order.

Its id, its measure, the shape of errors and the time limit, the guard against strangers' pages,
who asks and whether they are let in, and how much they may ask. Each of these is a function of its
own module that neither waits nor calls the next, but for credentials that somebody else must check.
They stand in one coroutine, since a middleware for each cost a lookup more than its answer does.
"""

import asyncio
import time
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from services.gateway.auth.identity import (
    PRINCIPAL,
    NotAllowedError,
    NotAuthenticatedError,
    Principal,
    Scope,
)
from services.gateway.limits import Limits, counted_as
from services.gateway.measuring import kind_of
from services.gateway.metrics import NOT_LET_IN, REQUESTS, STREAMS
from services.gateway.shifter.answers import as_the_wire_tells
from shared.errors import DrayError
from shared.http.answers import is_redirect, is_stream, problem_of
from shared.http.connections import Connections
from shared.http.guard import Guard
from shared.http.request_ids import HEADER, identify
from shared.http.time_limit import TimeLimit
from shared.http.tracing import request_span

API_PATHS: Final = "/api/"
"""Of ours and of Shifter's. Pages, health and metrics hold nothing that is anybody's."""


class KnowsWhoAsks(Protocol):
    """The authenticator."""

    def at_hand(self, request: web.Request) -> Principal | None: ...
    async def principal(self, request: web.Request) -> Principal: ...


class Front:
    """The application's one middleware."""

    def __init__(
        self,
        guard: Guard,
        who: KnowsWhoAsks,
        limits: Limits,
        time_limit: TimeLimit,
        connections: Connections,
    ) -> None:
        self._guard = guard
        self._who = who
        self._limits = limits
        self._time_limit = time_limit
        self._connections = connections

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = identify(request)
        self._connections.arrived(request.transport)
        if is_stream(request.match_info.route):
            return await self._stream(request, handler, request_id)
        began = time.perf_counter()
        task = self._time_limit.enter()
        status: int | None = None
        try:
            self._guard.check(request)
            principal = self._who.at_hand(request) or await self._who.principal(request)
            self._let_in(request, principal)
            with request_span(request, known=principal.via != "nobody"):
                response = await handler(request)
            status = response.status
        except asyncio.CancelledError:
            if not self._time_limit.ended(task):
                raise
            response = _problem(request, self._time_limit.exceeded(request))
            status = response.status
        except Exception as exc:
            if is_redirect(exc):
                status = exc.status
                exc.headers[HEADER] = request_id
                raise
            response = _problem(request, exc)
            status = response.status
        finally:
            self._time_limit.leave(task)
            REQUESTS.note(kind_of(request, status), time.perf_counter() - began)
        if not response.prepared:
            response.headers[HEADER] = request_id
        return response

    def let_in_at_once(self, request: web.Request) -> Principal | None:
        """Who sends this request to the API, if that and all else is plain; it is counted then.

        None: the middleware asks once more, and says what is wrong if something is.
        """
        try:
            self._guard.check(request)
            principal = self._who.at_hand(request)
            if principal is None:
                return None
            self._let_into_api(request, principal)
        except DrayError:
            return None
        self._connections.arrived(request.transport)
        return principal

    async def _stream(
        self, request: web.Request, handler: Handler, request_id: str
    ) -> web.StreamResponse:
        """An answer without end to measure or to wait for; one may follow so many at a time."""
        try:
            self._guard.check(request)
            principal = self._who.at_hand(request) or await self._who.principal(request)
            user = self._let_in(request, principal)
            with STREAMS.track_inprogress():
                if user is None:
                    response = await handler(request)
                else:
                    with self._limits.stream(user):
                        response = await handler(request)
        except Exception as exc:  # noqa: BLE001 - each becomes an answer, and ours are logged
            response = _problem(request, exc)
        if not response.prepared:
            response.headers[HEADER] = request_id
        return response

    def _let_in(self, request: web.Request, principal: Principal) -> str | None:
        """Into the API come those who may read there, as often as they may: whose the request is.

        None: it counts as nobody's.
        """
        request[PRINCIPAL] = principal
        # As the router reads a path, which has it at hand: there %2F is no slash.
        if not request.rel_url.path_safe.startswith(API_PATHS):
            return None
        return self._let_into_api(request, principal)

    def _let_into_api(self, request: web.Request, principal: Principal) -> str | None:
        principal.require(Scope.READ)
        if principal.admin:
            return None
        user = counted_as(principal, request.remote)
        self._limits.request(user)
        return user


def _problem(request: web.Request, exc: Exception) -> web.Response:
    """As whoever asks there understands it."""
    if isinstance(exc, NotAuthenticatedError | NotAllowedError):
        NOT_LET_IN.labels(exc.code).inc()
    return as_the_wire_tells(request, problem_of(request, exc))
