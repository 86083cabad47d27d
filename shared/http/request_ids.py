"""Every request has an id: the client's own, or a new one; in the answer and in each log line."""

import itertools
import re
import secrets
from typing import Final

import structlog
from aiohttp import web

HEADER: Final = "X-Request-Id"
_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Unique is enough: nothing is proved by knowing one, and the kernel's randomness costs a call each.
_PROCESS: Final = secrets.token_hex(8)
_NUMBERS: Final = itertools.count()
_ID: Final = web.RequestKey("request_id", str)


def identify(request: web.Request) -> str:
    """The request's id, from now on in each log line of its task."""
    request_id = request[_ID] = id_of(request)
    # Never unbound: each request of a connection is a task with a context of its own.
    structlog.contextvars.bind_contextvars(request=request_id)
    return request_id


def id_of(request: web.Request) -> str:
    """Its id alone, for what writes no log; asked once, since it may be a new one each time."""
    given = request.headers.get(HEADER)
    if given is not None and _SANE.fullmatch(given):
        return given
    return f"{_PROCESS}{next(_NUMBERS):012x}"


def request_id_headers(request: web.Request) -> dict[str, str]:
    """For a stream, whose headers are sent before it comes to an end."""
    return {HEADER: request[_ID]} if _ID in request else {}
