"""An HTTP server that starts and stops with its service."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from shared.errors import ConfigError
from shared.http.connections import Connections
from shared.http.local_socket import BACKLOG, LocalSocket, listen_locally
from shared.logging import get_logger

log = get_logger(__name__)

USUAL_HEADER: Final = 8 << 10
_MOST_LINE: Final = 32 << 10
"""A path and a query as long as any of ours may be, each letter with a percent sign."""
KEEP_ALIVE_SECONDS: Final = 75.0
"""Longer than usual proxies keep an idle connection, so that none sends into a closing one."""


AtOnce = Callable[[web.Request], web.StreamResponse | None]
"""Neither waits nor raises."""


@dataclass(frozen=True, slots=True)
class LocalListen:
    """A UNIX socket to listen on as well. One that is only the usual place may be done without."""

    path: Path
    key: str
    required: bool


class HttpServer:
    """An aiohttp application on one address, started and stopped with its service."""

    def __init__(
        self,
        app: web.Application,
        listen: str,
        *,
        local: LocalListen | None = None,
        connections: Connections | None = None,
        at_once: AtOnce | None = None,
        max_header: int = USUAL_HEADER,
    ) -> None:
        """`at_once` answers what it can before the application is asked; None: that has to."""
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self.app = app
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=2.0,
            max_line_size=_MOST_LINE,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            max_field_size=max_header,
        )
        self._local = local
        self._connections = connections
        self._at_once = at_once
        self._servers: list[asyncio.Server] = []
        self._socket: LocalSocket | None = None
        self.address = listen

    async def start(self) -> None:
        await self._runner.setup()
        if self._at_once is not None:
            self._answer_first(self._at_once)
        try:
            await self._start_local()
            await self._start_network()
        except ConfigError:
            await self.stop()
            raise
        # Port 0 asks the kernel for a free one: say which it gave.
        port = self._servers[-1].sockets[0].getsockname()[1]
        self.address = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    async def stop(self) -> None:
        # A socket that nobody answers would stand in the way of a living one's.
        if self._socket is not None:
            self._socket.path.unlink(missing_ok=True)
        for server in self._servers:
            server.close()
        self._servers.clear()
        await self._runner.cleanup()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _answer_first(self, at_once: AtOnce) -> None:
        server = self._runner.server
        assert server is not None
        application = server.request_handler

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.Request)
            known = at_once(request)
            return await application(request) if known is None else known

        server.request_handler = answer

    async def _start_local(self) -> None:
        if self._local is None:
            return
        try:
            self._socket = listen_locally(self._local.path, self._local.key)
        except ConfigError as exc:
            if self._local.required:
                raise
            log.warning("no_local_socket", reason=exc.message)
            return
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            self._protocol(), sock=self._socket.socket, backlog=BACKLOG
        )
        self._servers.append(server)

    async def _start_network(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(
                self._protocol(), self._host, self._port, backlog=BACKLOG
            )
        except OSError as exc:
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            raise ConfigError(
                f"cannot listen on {self.address}: {reason}; choose another address with --listen "
                "or the service's `listen` setting"
            ) from exc
        self._servers.append(server)

    def _protocol(self) -> Callable[[], asyncio.Protocol]:
        assert self._runner.server is not None
        if self._connections is None:
            return self._runner.server
        return self._connections.guarded(self._runner.server)
