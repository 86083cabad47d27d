"""Blocking work in a thread, which nobody leaves running on behind."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, TypeVar

from shared.deadline import Deadline

T = TypeVar("T")

LAST_WORD_SECONDS: Final = 10.0


async def in_thread(
    work: Callable[[], T], cancelled: threading.Event, deadline: Deadline, doing: str
) -> T:
    """Run `work`, which looks at `cancelled` now and then, within the deadline.

    In a thread of its own: the few that asyncio has are for short work, such as asking for a lock,
    which must never wait for hours of long work, or for a file system that hangs.
    Whoever is cancelled, or out of time, waits for the thread to end; but not for ever, since a
    hung file system holds a thread as long as it likes.
    """
    own = ThreadPoolExecutor(1, thread_name_prefix="work")
    working = asyncio.get_running_loop().run_in_executor(own, copy_context().run, work)
    own.shutdown(wait=False)  # once it is done
    try:
        async with deadline.bound(doing):
            return await asyncio.shield(working)
    except BaseException:
        cancelled.set()
        await ended(working)
        raise


async def ended(working: asyncio.Future[T]) -> None:
    """Wait a moment for work that was told to stop; what it says is no news any more."""
    working.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait([working], timeout=LAST_WORD_SECONDS)
