"""The HTTP that every service serves: liveness, readiness and metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Checks = Callable[[], Awaitable[Mapping[str, str | None]]]
"""Each dependency of a service, and what is wrong with it (None: nothing)."""


def health_routes(checks: Checks) -> list[web.RouteDef]:
    running = version("dray")

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": running})

    async def readyz(_request: web.Request) -> web.Response:
        found = await checks()
        ready = all(problem is None for problem in found.values())
        return web.json_response(
            {
                "status": "ok" if ready else "unavailable",
                "checks": {name: problem or "ok" for name, problem in found.items()},
            },
            status=200 if ready else 503,
        )

    async def metrics(_request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        web.get("/livez", livez),
        web.get("/readyz", readyz),
        web.get("/metrics", metrics),
    ]
