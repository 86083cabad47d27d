"""Following one image record as it changes, whichever gateway made the change.

Changes of this process wake the followers at once; those of other gateways over the same catalog
are seen by looking again at short intervals, which costs one indexed read per followed record.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from shared.catalog.interface import Catalog, PendingEvent
from shared.catalog.records import ImageRecord, Record
from shared.deadline import Deadline

LOOK_AGAIN_SECONDS = 0.5


class ChangeFeed:
    """Wakes whoever follows a record."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._followers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        catalog.listen(self._changed)

    async def follow(self, key: str, deadline: Deadline) -> AsyncIterator[ImageRecord]:
        """The record as it stands, then each later version, until the deadline."""
        wake = asyncio.Event()
        self._followers[key].add(wake)
        version = -1
        try:
            while True:
                wake.clear()
                record = await self._catalog.images.get(key)
                if record is not None and record.version != version:
                    version = record.version
                    yield record
                if deadline.expired:
                    return
                await _woken(wake, min(LOOK_AGAIN_SECONDS, deadline.remaining()))
        finally:
            self._followers[key].discard(wake)
            if not self._followers[key]:
                del self._followers[key]

    def _changed(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        for wake in self._followers.get(record.key, ()):
            wake.set()


async def _woken(wake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
