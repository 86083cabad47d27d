"""Measures requests, for Prometheus: how long, how they ended, and who was not let in."""

import time
from functools import lru_cache
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import Histogram

from services.gateway.auth.identity import PRINCIPAL, NotAllowedError, NotAuthenticatedError
from services.gateway.metrics import NOT_LET_IN, REQUESTS, STREAMS
from shared.http.answers import is_stream

UNKNOWN: Final = "unknown"
"""For what is none of a few known values: a label must not be a client's to choose."""
_KINDS: Final = 4096
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def measuring_middleware() -> Middleware:
    """The outermost: what it sees is what the client gets."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_stream(request):
            with STREAMS.track_inprogress():
                return await handler(request)
        began = time.perf_counter()
        # Whoever goes away before the answer leaves this in the metrics.
        status = "gone"
        try:
            response = await handler(request)
            status = str(response.status)
        except web.HTTPException as exc:
            status = str(exc.status)
            raise
        finally:
            seconds = time.perf_counter() - began
            _requests(_route(request), _method(request), status, _via(request)).observe(seconds)
        return response

    return middleware


def not_let_in_middleware() -> Middleware:
    """Within what makes answers of errors, around what finds out who asks."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (NotAuthenticatedError, NotAllowedError) as exc:
            NOT_LET_IN.labels(exc.code).inc()
            raise

    return middleware


@lru_cache(_KINDS)
def _requests(route: str, method: str, status: str, via: str) -> Histogram:
    return REQUESTS.labels(route, method, status, via)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return UNKNOWN if resource is None else resource.canonical


def _method(request: web.Request) -> str:
    return request.method if request.method in _METHODS else UNKNOWN


def _via(request: web.Request) -> str:
    principal = request.get(PRINCIPAL)
    return UNKNOWN if principal is None else principal.via
