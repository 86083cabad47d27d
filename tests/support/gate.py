"""A TCP proxy that holds a server's answers back after so many bytes, until it is opened.

Tests use it to keep a download under way for exactly as long as they need, without sleeping.
"""

import asyncio
from contextlib import suppress
from typing import Self

from tests.support.conditions import eventually
from tests.support.ports import free_port

PIECE = 16 << 10


class Gate:
    """`async with Gate(port) as gate:`; clients connect to `gate.port`."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self._server_port = server_port
        self._passed = 0
        self._limit: int | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def holding(self) -> bool:
        """Whether answers are being held back now."""
        return not self._open.is_set()

    def hold_after(self, size: int) -> None:
        """Let `size` more bytes of answers pass, then none until `open`."""
        self._limit = self._passed + size

    def open(self) -> None:
        self._limit = None
        self._open.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.open()
        for end in tuple(self._ends):
            end.transport.abort()
        await eventually(lambda: not self._ends, within=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            self._ends.add(to_server)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass_on(reader, to_server, counted=False))
                    group.create_task(self._pass_on(from_server, writer, counted=True))
            finally:
                to_server.close()
                self._ends.discard(to_server)
        except* OSError:
            pass  # either side has gone, which is what some tests are about
        finally:
            writer.close()
            self._ends.discard(writer)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        while piece := await reader.read(PIECE):
            if counted:
                if self._limit is not None and self._passed >= self._limit:
                    self._open.clear()
                await self._open.wait()
                self._passed += len(piece)
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()
