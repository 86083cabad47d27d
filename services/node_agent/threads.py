"""Threads for what a dead file system can hang forever: they never keep the agent from exiting.

An executor of the standard library waits for its threads when the process ends, and so would the
next agent, for the lock that this one still holds.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Runs blocking work, `limit` at once at most; one that hangs keeps its place."""

    def __init__(self, limit: int, name: str) -> None:
        self._free = asyncio.Semaphore(limit)
        self._name = name

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """The result of `work`. Whoever is cancelled leaves it running, its result unseen."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(settle: Callable[[], None]) -> None:
            self._free.release()
            if not done.done():
                settle()

        def body() -> None:
            settle: Callable[[], None]
            try:
                settle = functools.partial(done.set_result, work(*args))
            except BaseException as exc:  # noqa: BLE001 - the waiting task's, whatever it is
                settle = functools.partial(done.set_exception, exc)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, settle)

        await self._free.acquire()
        try:
            threading.Thread(target=body, name=self._name, daemon=True).start()
        except BaseException:
            self._free.release()
            raise
        return await done
