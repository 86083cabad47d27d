"""Blocking work in a thread, which nobody leaves running on behind."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from shared.deadline import Deadline

T = TypeVar("T")

LAST_WORD_SECONDS: Final = 10.0


async def in_thread(
    work: Callable[[], T], cancelled: threading.Event, deadline: Deadline, doing: str
) -> T:
    """Run `work`, which looks at `cancelled` now and then, within the deadline.

    Whoever is cancelled, or out of time, waits for the thread to end; but not for ever, since a
    hung file system holds a thread as long as it likes.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work))
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
