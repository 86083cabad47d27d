"""The span of a request that somebody wants to follow."""

from contextlib import AbstractContextManager, nullcontext
from typing import Final

from aiohttp import hdrs, web

from shared.tracing import Span, is_traceparent, recording, span

HEADER: Final = "traceparent"
_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


def request_span(request: web.Request, *, known: bool) -> AbstractContextManager[Span | None]:
    """A trace begins with a request that changes something, or goes on where its client began.

    What only reads is asked for a thousand times a second, and has a histogram. `known`: whether it
    is known who asks. Strangers neither choose what is recorded, nor add to anybody's trace.
    """
    resource = request.match_info.route.resource
    if resource is None or not recording():
        return nullcontext()
    given = request.headers.get(HEADER) if known else None
    if given is not None and not is_traceparent(given):
        given = None
    if given is None and request.method in _READING:
        return nullcontext()
    path = resource.canonical
    return span(
        f"{request.method} {path}",
        kind="server",
        parent=given,
        root=True,
        attributes={"http.request.method": request.method, "http.route": path},
    )
