"""A thread for one stream's reads: one that hangs hinders no other stream, nor the process's end.

The event loop's own threads are few, and short work of all pulls needs them; and an executor of the
standard library waits for its threads when the process ends, however dead their file system is.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from shared.deadline import Deadline

T = TypeVar("T")


@contextmanager
def own_thread() -> Iterator["OwnThread"]:
    """It ends with the body; or, where it hangs by then, once it does no more."""
    work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    threading.Thread(target=_serve, args=(work,), name="reading", daemon=True).start()
    try:
        yield OwnThread(work)
    finally:
        work.put(None)


class OwnThread:
    """Runs blocking calls, one after the other."""

    def __init__(self, work: SimpleQueue[Callable[[], None] | None]) -> None:
        self._work = work

    async def run(self, call: Callable[[], T], deadline: Deadline, doing: str) -> T:
        """Its result. Whoever is cancelled, or out of time, leaves it alone."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(settle: Callable[[], None]) -> None:
            if not done.done():
                settle()

        def serve() -> None:
            settle: Callable[[], None]
            try:
                settle = partial(done.set_result, call())
            except BaseException as exc:  # noqa: BLE001 - the waiting task's, whatever it is
                settle = partial(done.set_exception, exc)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, settle)

        self._work.put(serve)
        async with deadline.bound(doing):
            return await done


def _serve(work: SimpleQueue[Callable[[], None] | None]) -> None:
    while (each := work.get()) is not None:
        each()
