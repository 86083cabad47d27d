"""How the wire's answers look, to the byte where a client depends on it.

Shifter's client takes an answer only with status 200, with a Content-Type of exactly
`application/json` and with a Content-Length; scripts look for `"status": "READY"`, with the space.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from shared.api import API

Json = Mapping[str, Any]
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
WIRE_ERROR: Final = 404
"""For whatever is wrong with a request: clients of this wire have hardly seen another status."""
_OF_THE_GATEWAY: Final = frozenset({429, *range(500, 600)})
_WIRE: Final = "/api/"


def wire_answer(
    content: Json | Sequence[Json] | bytes, status: int = 200, headers: Json | None = None
) -> web.Response:
    # As bytes: a text would bring a charset along, and the client would print nothing.
    body = content if isinstance(content, bytes) else encoded(content)
    return web.Response(body=body, status=status, headers=headers, content_type=JSON)


def encoded(content: Json | Sequence[Json]) -> bytes:
    return json.dumps(content).encode()


def on_the_wire(path: str) -> bool:
    return path.startswith(_WIRE) and not path.startswith(f"{API}/")


def wire_error_middleware() -> Middleware:
    """Gives problems with the wire's own routes the wire's own shape, wherever they come from.

    It stands before the middleware that makes the problems. Trouble of the gateway's own keeps its
    status, so that a client may ask another gateway or later; Shifter's takes all of them alike.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if not on_the_wire(request.path) or not _is_problem(response):
            return response
        assert isinstance(response.body, bytes)
        problem = json.loads(response.body)
        status = response.status if response.status in _OF_THE_GATEWAY else WIRE_ERROR
        message = f"{'Not Found' if status == WIRE_ERROR else 'Failed'}: {request.path}"
        content = {"status": status, "error": problem["detail"], "message": message}
        return wire_answer(content, status, _kept(response))

    return middleware


def _is_problem(response: web.StreamResponse) -> TypeGuard[web.Response]:
    return isinstance(response, web.Response) and response.content_type == PROBLEM


def _kept(response: web.Response) -> Json:
    return {key: response.headers[key] for key in (hdrs.RETRY_AFTER,) if key in response.headers}
