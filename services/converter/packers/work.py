"""One layer in work, as its owner sees it: bytes go in, one answer comes back."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

from services.converter.crossing import Crashed
from services.converter.packers.errors import PackerDiedError
from services.converter.packers.messages import (
    MAX_PACKET,
    Ended,
    Outcome,
    Packed,
    Unstarted,
    error_of,
    message_of,
)
from services.converter.packing.pack_layer import PackSummary
from shared.logging import get_logger
from shared.threads import LAST_WORD_SECONDS

log = get_logger(__name__)


class Work:
    """Takes the pipe and the socket over; blocks no loop."""

    def __init__(self, layer: str, pipe: int, results: socket.socket) -> None:
        self._layer = layer
        self._pipe: int | None = pipe
        self._results = results

    async def write(self, chunk: bytes) -> bool:
        """False if the packer takes no more: `finish` then says why."""
        assert self._pipe is not None
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(self._pipe, rest) :]
            except BlockingIOError:
                await writable(self._pipe)
            except BrokenPipeError:
                return False
        return True

    async def finish(self) -> PackSummary:
        """After the last byte: what became of the layer. The packer's process is gone then."""
        self._close_pipe()
        outcome: Outcome | None = None
        died = PackerDiedError.ended(self._layer, None)
        async for packet in self._packets():
            match message := message_of(packet):
                case Ended():
                    died = PackerDiedError.ended(self._layer, message.status)
                case Unstarted():
                    died = PackerDiedError.unstarted(self._layer, message.reason)
                case _:
                    outcome = message
        match outcome:
            case None:
                raise died
            case Packed():
                return outcome.summary
            case Crashed():
                log.error("packer_crashed", layer=self._layer, traceback=outcome.traceback)
        raise error_of(outcome)

    async def give_up(self) -> None:
        """Returns when the packer's process is gone, or cannot be waited for any longer."""
        # First, so that the packer does not take the end of the pipe for the end of the blob.
        with suppress(OSError):
            self._results.shutdown(socket.SHUT_WR)
        self._close_pipe()
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                async for _ in self._packets():
                    pass
        except TimeoutError:
            log.warning("packer_hangs", layer=self._layer)

    def close(self) -> None:
        self._close_pipe()
        self._results.close()

    async def _packets(self) -> AsyncIterator[bytes]:
        """Until nobody is left on the other side."""
        loop = asyncio.get_running_loop()
        while packet := await loop.sock_recv(self._results, MAX_PACKET):
            yield packet

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


async def writable(fd: int) -> None:
    """Wait until it takes more."""
    loop = asyncio.get_running_loop()
    room = asyncio.Event()
    loop.add_writer(fd, room.set)
    try:
        await room.wait()
    finally:
        loop.remove_writer(fd)
