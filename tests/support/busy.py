"""How long the event loop worked without a pause, whatever else the machine is doing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.tasks import cancel_all

MOST_SECONDS = 0.5
"""Ten times what is allowed: neighbours slow a thread down; all records at once take seconds."""


@asynccontextmanager
async def never_busy_for_long() -> AsyncIterator[None]:
    """Fails if the loop's thread computed for longer than it may, at one go."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield
        await asyncio.sleep(0)
    finally:
        await cancel_all(watching)
    assert longest < MOST_SECONDS
