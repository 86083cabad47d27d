"""Every request has an id: the client's own, or a new one; in the answer and in each log line."""

import itertools
import re
import secrets
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

HEADER: Final = "X-Request-Id"
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Unique is enough: nothing is proved by knowing one, and the kernel's randomness costs a call each.
_PROCESS: Final = secrets.token_hex(8)
_NUMBERS: Final = itertools.count()
_ID: Final = web.RequestKey("request_id", str)


def install_request_ids(app: web.Application) -> None:
    """Errors carry it too: it is the outermost of the application's middlewares."""
    app.middlewares.insert(0, _middleware)


@web.middleware
async def _middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get(HEADER, "")
    request[_ID] = given if _SANE.fullmatch(given) else f"{_PROCESS}{next(_NUMBERS):012x}"
    # Never unbound: a connection's requests come one after the other, each with an id of its own.
    structlog.contextvars.bind_contextvars(request=request[_ID])
    try:
        response = await handler(request)
    except web.HTTPException as exc:
        exc.headers[HEADER] = request[_ID]
        raise
    if not response.prepared:
        response.headers[HEADER] = request[_ID]
    return response


def request_id_headers(request: web.Request) -> dict[str, str]:
    """For a stream, which begins before this middleware sees it again."""
    return {HEADER: request[_ID]} if _ID in request else {}
