"""An HTTP proxy in this process, as sites put one between themselves and the world.

It knows names that nobody else does, which is what proves that somebody came through it.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.ports import free_port


@dataclass
class Proxy:
    """`hosts` says where names lead; any other host is forbidden."""

    hosts: Mapping[str, str]
    login: str | None = None
    port: int = field(default_factory=free_port)
    asked: list[str] = field(default_factory=list)
    """Methods and hosts."""

    @property
    def url(self) -> str:
        return f"http://{self.login + '@' if self.login else ''}127.0.0.1:{self.port}"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
            await _closed(writer)
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *headers = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host = f"{url.hostname}:{url.port}"
        wanted = f"Basic {base64.b64encode((self.login or '').encode()).decode()}"
        if self.login and f"Proxy-Authorization: {wanted}" not in headers:
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
            return
        self.asked.append(f"{method} {host}")
        if host not in self.hosts:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        there, port = self.hosts[host].split(":")
        far_reader, far_writer = await asyncio.open_connection(there, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            path = url.path + (f"?{url.query}" if url.query else "")
            kept = [line for line in headers if not line.lower().startswith(("proxy-", "connect"))]
            request = [f"{method} {path} HTTP/1.1", "Connection: close", *kept]
            far_writer.write("\r\n".join(request).encode("latin-1"))
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            far_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[Proxy]:
    tasks: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", proxy.port)
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
