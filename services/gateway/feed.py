"""Following one image record as it changes, whichever gateway made the change.

Changes of this process wake the followers at once; those of other gateways over the same catalog
are seen by looking again at short intervals, which costs each follower one indexed read.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator

from shared.catalog.interface import Catalog, PendingEvent
from shared.catalog.records import ImageRecord, Record
from shared.deadline import Deadline
from shared.errors import DrayError

LOOK_AGAIN_SECONDS = 0.5
FOLLOWERS_AT_ONCE = 1000


class TooManyFollowersError(DrayError):
    """More clients follow pulls than a gateway looks after."""

    code = "too_many_followers"
    status = 503
    retryable = True


class ChangeFeed:
    """Wakes whoever follows a record."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._followers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._count = 0
        catalog.listen(self._changed)

    async def follow(self, key: str, deadline: Deadline) -> AsyncGenerator[ImageRecord, None]:
        """The record as it stands, then each later version, until the deadline."""
        if self._count >= FOLLOWERS_AT_ONCE:
            raise TooManyFollowersError(
                f"this gateway has {FOLLOWERS_AT_ONCE} followers already; ask for the pull itself "
                "now and then, or another gateway"
            )
        self._count += 1
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
            self._count -= 1
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
