"""An HTTP server that starts and stops with its service."""

import os

from aiohttp import web

from shared.errors import ConfigError


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
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            raise ConfigError(
                f"cannot listen on {self.address}: {reason}; choose another address with --listen "
                "or the service's `listen` setting"
            ) from exc
        # Port 0 asks the kernel for a free one: say which it gave.
        port = self._runner.addresses[0][1]
        self.address = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()
