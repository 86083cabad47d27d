"""A way to a server that can break, or fall silent, while both ends live."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress


class Relay:
    """Passes bytes on between whoever connects and one address."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    async def close(self) -> None:
        """For good; who is connected is cut off."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """All connections break; new ones are welcome."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Nothing comes through meanwhile."""
        self._passing.clear()
        try:
            yield
        finally:
            self._passing.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._copy(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        self._writers.add(target)
        with suppress(ConnectionError):
            while content := await source.read(1 << 16):
                await self._passing.wait()
                target.write(content)
                await target.drain()
        self._writers.discard(target)
        target.transport.abort()


@asynccontextmanager
async def relaying(host: str, port: int) -> AsyncIterator[Relay]:
    relay = Relay(host, port)
    await relay.open()
    try:
        yield relay
    finally:
        await relay.close()
