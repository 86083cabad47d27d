"""Serves the dashboard's files from memory, under a policy that lets nothing else in."""

from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_ROOT: Final = files("services.gateway.web")

Serve = Callable[[web.Request], Awaitable[web.Response]]


def page_routes() -> list[web.RouteDef]:
    """The dashboard at /, and below /web whatever stands beside this module for browsers."""
    assets = [web.get(f"/web/{name}", page(name)) for name in _assets(_ROOT, "")]
    return [web.get("/", page("index.html")), *assets]


def page(name: str) -> Serve:
    """Serves one of the files; a browser that has it already is told so."""
    body = _ROOT.joinpath(*name.split("/")).read_bytes()
    content_type = _TYPES[name.rpartition(".")[2]]
    etag = blake2b(body, digest_size=12).hexdigest()

    async def serve(request: web.Request) -> web.Response:
        known = request.if_none_match
        if known is not None and any(each.value == etag for each in known):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(
                body=body, headers=_HEADERS, content_type=content_type, charset="utf-8"
            )
        response.etag = etag
        return response

    return serve


def _assets(folder: Traversable, prefix: str) -> Iterator[str]:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            yield from _assets(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _TYPES.keys() - {"html"}:
            yield f"{prefix}{entry.name}"
