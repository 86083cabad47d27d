"""Background loops that outlive one bad round."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from shared.errors import DrayError
from shared.logging import get_logger

log = get_logger(__name__)


async def repeat(name: str, interval: float, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` now and then every `interval` seconds (±10 %), until cancelled.

    A failed round is logged and the loop goes on: whatever the loop guards would otherwise stay
    unguarded until somebody restarts the service.
    """
    while True:
        try:
            await work()
        except DrayError as exc:
            log.warning("round_failed", loop=name, code=exc.code, error=exc.message)
        except Exception:
            log.exception("round_failed", loop=name)
        await asyncio.sleep(interval * random.uniform(0.9, 1.1))


async def cancel_all(*tasks: asyncio.Task[None]) -> None:
    """Cancel and wait, so that nothing runs on behind a stopped service."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
