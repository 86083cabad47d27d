"""A few threads for calls that may hang: another daemon, a directory of users."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shared.errors import DrayError

T = TypeVar("T")


class NoAnswerError(DrayError):
    """What proves who somebody is does not answer, or has too much to do."""

    code = "authentication_unavailable"
    status = 503
    retryable = True


class Workers:
    """At most `threads` calls at a time and `waiting` behind them; more are refused at once.

    A call that is given up holds its thread until it ends, so that a daemon that hangs is seen as
    one soon, instead of being asked ever more.
    """

    def __init__(self, asked: str, *, threads: int, waiting: int, seconds: float) -> None:
        self._asked = asked
        self._room = threads + waiting
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=asked.replace(" ", "-"))

    async def run(self, call: Callable[[], T]) -> T:
        if self._room == 0:
            raise NoAnswerError(f"{self._asked} is busy or hangs: try again in a moment")
        self._room -= 1
        loop = asyncio.get_running_loop()
        working = self._pool.submit(call)
        working.add_done_callback(lambda _: _tell(loop, self._done))
        try:
            async with asyncio.timeout(self._seconds):
                # Given up, it is taken from the queue, unless a thread is at it.
                return await asyncio.wrap_future(working)
        except TimeoutError as exc:
            raise NoAnswerError(
                f"{self._asked} did not answer within {self._seconds:g} s: try again in a moment"
            ) from exc

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self) -> None:
        self._room += 1


def _tell(loop: asyncio.AbstractEventLoop, done: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
        loop.call_soon_threadsafe(done)
