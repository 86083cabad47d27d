"""`python -m bench.gateway.serve`: one of the two servers that are compared.

`gateway SETTINGS` is the real service, with a bus inside of its process, since nothing is sent.
`bare PORT FILE` is an aiohttp application with one handler that returns the bytes of a file.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from services.gateway.app import build
from shared.bus.connect import connect_bus
from shared.config import load_settings
from shared.logging import configure_logging
from shared.service import run_services


def main() -> None:
    match sys.argv[1:]:
        case ["gateway", settings]:
            asyncio.run(_serve_gateway(Path(settings)))
        case ["bare", port, file]:
            _serve_bare(int(port), Path(file).read_bytes())
        case _:
            sys.exit(__doc__)


async def _serve_gateway(path: Path) -> None:
    settings = load_settings(path)
    configure_logging(settings.log)
    await run_services([build(settings, connect_bus(settings, "bench"))])


def _serve_bare(port: int, body: bytes) -> None:
    app = web.Application()
    app.add_routes([web.get("/{path:.*}", _answering(body))])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


def _answering(body: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return answer


if __name__ == "__main__":
    main()
