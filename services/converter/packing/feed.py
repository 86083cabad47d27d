"""A bounded pipe of bytes from an asyncio task to a thread.

The task awaits `write`, which waits while the pipe is full without blocking the event loop; the
thread blocks in `read`. Each side can give up: `fail` reaches the reader, `close` the writer. A
task that is cancelled must call `fail`, or the thread would wait for it for ever.
"""

import asyncio
import threading
from collections import deque
from contextlib import suppress

from shared.errors import DrayError


class FeedClosedError(DrayError):
    """The reader of a layer's bytes has given up; its own error says why."""

    code = "feed_closed"


class Feed:
    """One writer on an event loop, one reader in a thread."""

    def __init__(self, capacity: int = 8 << 20) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._chunks: deque[bytes | memoryview] = deque()
        self._buffered = 0
        self._finished = False
        self._closed = False
        self._failure: BaseException | None = None
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    async def write(self, chunk: bytes) -> None:
        """Hand a chunk over; when cancelled while waiting, the chunk was not taken."""
        if not chunk:
            return
        while not self._offer(chunk):
            loop = asyncio.get_running_loop()
            room = loop.create_future()
            with self._changed:
                # The reader may have made room since; then nobody would wake us.
                if self._closed or self._buffered < self._capacity:
                    continue
                self._waiting = (loop, room)
            await room

    async def finish(self) -> None:
        """No more bytes: the reader sees the end after those that are left."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Make every read from now on raise `error`."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def close(self) -> None:
        """The reader's end: the writer gets FeedClosedError from now on, a blocked reader too."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._buffered = 0
            self._changed.notify_all()
            self._wake_writer()

    def read(self, size: int) -> bytes:
        """Block for up to `size` bytes; b"" is the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._chunks or self._finished or self._closed or self._failure
            )
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise FeedClosedError("the feed was closed while it was being read")
            if not self._chunks:
                return b""
            chunk = self._chunks.popleft()
            if len(chunk) > size:
                view = memoryview(chunk)
                self._chunks.appendleft(view[size:])
                chunk = view[:size]
            self._buffered -= len(chunk)
            # Half empty, not one byte less than full: fewer hops between the threads.
            if self._buffered <= self._capacity // 2:
                self._wake_writer()
        return chunk if isinstance(chunk, bytes) else chunk.tobytes()

    def _offer(self, chunk: bytes) -> bool:
        with self._changed:
            if self._closed:
                raise FeedClosedError("nobody reads this layer any more")
            if self._buffered >= self._capacity:
                return False
            self._chunks.append(chunk)
            self._buffered += len(chunk)
            self._changed.notify_all()
            return True

    def _wake_writer(self) -> None:
        if self._waiting is None:
            return
        loop, room = self._waiting
        self._waiting = None
        with suppress(RuntimeError):  # the loop is closed, and the writer with it
            loop.call_soon_threadsafe(_resolve, room)


def _resolve(room: "asyncio.Future[None]") -> None:
    if not room.done():
        room.set_result(None)
