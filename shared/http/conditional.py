"""Answers that a client may keep, and asks about by their ETag before it fetches them again."""

from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDict

# Whoever keeps it asks each time, and for nobody else: what one may see depends on who asks.
KEPT_PRIVATELY: Final = "private, no-cache"
NEVER_KEPT: Final = {"Cache-Control": "no-store"}
_MOST_TAGS: Final = 4096
# Made once: copying one of these costs less than making it of a plain mapping.
_KEPT: Final = CIMultiDict({hdrs.CACHE_CONTROL: KEPT_PRIVATELY, hdrs.VARY: hdrs.AUTHORIZATION})
_KEPT_JSON: Final = CIMultiDict({**_KEPT, hdrs.CONTENT_TYPE: "application/json"})


def conditional(request: web.Request, body: bytes, etag: str) -> web.Response:
    """JSON with its ETag, or 304 to a client that has it already."""
    if (given := request.headers.get(hdrs.IF_NONE_MATCH)) is not None and _matches(given, etag):
        response = web.Response(status=304, headers=_KEPT)
    else:
        response = web.Response(body=body, headers=_KEPT_JSON)
    response.headers[hdrs.ETAG] = etag
    return response


def _matches(given: str, etag: str) -> bool:
    """Compared weakly, as RFC 9110 wants it for If-None-Match."""
    bare = etag.removeprefix("W/")
    tags = (each.strip().removeprefix("W/") for each in given[:_MOST_TAGS].split(","))
    return any(tag in {bare, "*"} for tag in tags)
