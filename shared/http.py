"""The HTTP that every service serves: liveness, readiness and metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.errors import ConfigError

Checks = Callable[[], Awaitable[Mapping[str, str | None]]]
"""Each dependency of a service, and what is wrong with it (None: nothing)."""


def health_routes(checks: Checks) -> list[web.RouteDef]:
    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

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


class HttpServer:
    """An aiohttp application on one address, started and stopped with its service."""

    def __init__(self, app: web.Application, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        self.address = listen

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as exc:
            await self._runner.cleanup()
            raise ConfigError(f"cannot listen on {self.address}: {exc.strerror}") from exc
        # Port 0 asks the kernel for a free one: say which it gave.
        port = self._runner.addresses[0][1]
        self.address = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()
