"""How the wire's answers look, to the byte where a client depends on it.

Shifter's client takes an answer only with status 200, with a Content-Type of exactly
`application/json` and with a Content-Length; scripts look for `"status": "READY"`, with the space.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import hdrs, web

from shared.api import API

Json = Mapping[str, Any]
JSON: Final = "application/json"
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


def as_the_wire_tells(request: web.Request, problem: web.Response) -> web.Response:
    """A problem with one of the wire's own routes in the wire's own shape.

    Trouble of the gateway's own keeps its status, so that a client may ask another gateway or
    later; Shifter's takes all of them alike.
    """
    if not on_the_wire(request.path):
        return problem
    assert isinstance(problem.body, bytes)
    detail = json.loads(problem.body)["detail"]
    status = problem.status if problem.status in _OF_THE_GATEWAY else WIRE_ERROR
    message = f"{'Not Found' if status == WIRE_ERROR else 'Failed'}: {request.path}"
    content = {"status": status, "error": detail, "message": message}
    return wire_answer(content, status, _kept(problem))


def _kept(response: web.Response) -> Json:
    return {key: response.headers[key] for key in (hdrs.RETRY_AFTER,) if key in response.headers}
