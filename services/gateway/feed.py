"""What changes among the images, whichever gateway changed it: followed, and kept in outline.

This process's own changes are known at once. Those of other gateways over the same catalog are
looked for by one poll for all who wait, a few times a second, in the catalog's order of changes.
Nothing that is answered from memory is older than `FRESH_SECONDS`: if the polls are late, whoever
asks waits for one, and hears of a catalog that does not answer.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from services.gateway.directory import Directory, Entry, Outline
from shared.catalog.interface import Catalog, Changed, PendingEvent
from shared.catalog.records import ImageRecord, Record
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.logging import get_logger
from shared.tasks import cancel_all, repeat

POLL_SECONDS: Final = 0.25
FRESH_SECONDS: Final = 1.0
FILL_SECONDS: Final = 600.0
"""How often the directory is read as a whole, for what no order of changes tells: removals."""
FOLLOWERS_AT_ONCE: Final = 1000
PATIENCE_SECONDS: Final = 5.0
# Some milliseconds of reading between two moments at which others may go on.
_PAGE: Final = 100

log = get_logger(__name__)


class TooManyFollowersError(DrayError):
    """More clients follow pulls and queues than a gateway looks after."""

    code = "too_many_followers"
    status = 503
    retryable = True


@dataclass(slots=True)
class _Signal:
    """Wakes all who wait, each time; who waits takes the event before looking."""

    event: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.event.set()
        self.event = asyncio.Event()


@dataclass(slots=True)
class _Followed:
    """A record that somebody follows."""

    followers: int = 0
    record: ImageRecord | None = None
    signal: _Signal = field(default_factory=_Signal)

    def knows(self, version: int) -> bool:
        return self.record is not None and self.record.version >= version

    def note(self, record: ImageRecord) -> None:
        if not self.knows(record.version):
            self.record = record
            self.signal.wake()


class ChangeFeed:
    """Keeps the directory true, and wakes whoever follows a record or the queue."""

    def __init__(self, catalog: Catalog) -> None:
        self.directory = Directory()
        self._images = catalog.images
        self._followed: dict[str, _Followed] = {}
        self._queue = _Signal()
        self._followers = 0
        self._position = 0
        self._polled_at = -FRESH_SECONDS
        self._polling: asyncio.Task[None] | None = None
        self._loops: list[asyncio.Task[None]] = []
        catalog.listen(self._changed)
        self.directory.listen(self._noted)

    async def start(self) -> None:
        """Fill the directory, then follow the catalog."""
        began = time.monotonic()
        self._position = await self._images.position()
        await self._fill()
        self._polled_at = began
        self._loops = [
            asyncio.create_task(self._poll_on(), name="changes"),
            asyncio.create_task(repeat("directory", FILL_SECONDS, self._fill), name="directory"),
        ]

    async def stop(self) -> None:
        tasks = self._loops if self._polling is None else [*self._loops, self._polling]
        await cancel_all(*tasks)

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self._polled_at < FRESH_SECONDS

    async def fresh(self) -> None:
        """Return when the directory is at most FRESH_SECONDS old; mostly that is at once."""
        asked = time.monotonic()
        # The round under way may have looked before what it is asked for: then one more.
        while not self.is_fresh and self._polled_at < asked:
            await self._poll()

    async def follow(self, key: str, deadline: Deadline) -> AsyncGenerator[ImageRecord, None]:
        """The record as it stands, then later versions, until the deadline.

        Who is slow misses versions in between, and never the last one.
        """
        with self._following(), self._follower_of(key) as followed:
            found = await self._images.get(key)
            if found is not None:
                followed.note(found)
            version = -1
            while True:
                changed = followed.signal.event
                record = followed.record
                if record is not None and record.version > version:
                    version = record.version
                    yield record
                    continue
                if deadline.expired:
                    return
                await self._wait(changed, deadline)

    async def queue_changes(self, deadline: Deadline) -> AsyncGenerator[None, None]:
        """Whenever something of the queue may have changed, and at once to begin with.

        Not counted: one for all who may see the same, and those are counted where they follow.
        """
        while not deadline.expired:
            changed = self._queue.event
            yield
            await self._wait(changed, deadline)

    async def _wait(self, changed: asyncio.Event, deadline: Deadline) -> None:
        """Until something changed or a while has passed; an error if nothing can be heard."""
        try:
            async with asyncio.timeout(min(PATIENCE_SECONDS, deadline.remaining())):
                await changed.wait()
        except TimeoutError:
            await self.fresh()

    @contextmanager
    def _following(self) -> Iterator[None]:
        if self._followers >= FOLLOWERS_AT_ONCE:
            raise TooManyFollowersError(
                f"this gateway has {FOLLOWERS_AT_ONCE} followers already; ask for the pull or the "
                "queue itself now and then, or another gateway"
            )
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    @contextmanager
    def _follower_of(self, key: str) -> Iterator[_Followed]:
        followed = self._followed.setdefault(key, _Followed())
        followed.followers += 1
        try:
            yield followed
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._followed[key]

    def _changed(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        if isinstance(record, ImageRecord):
            self._note(record)

    def _note(self, record: ImageRecord) -> None:
        self.directory.note(record.key, record)
        if followed := self._followed.get(record.key):
            followed.note(record)

    def _noted(self, before: Entry | None, after: Entry) -> None:
        if after.queued or (before is not None and before.queued):
            self._queue.wake()

    async def _poll_on(self) -> None:
        """Poll until cancelled; a catalog that is away for long is complained of once."""
        failing = False
        while True:
            try:
                await self._poll()
                failing = False
            except DrayError as exc:
                if not failing:
                    log.warning("changes_unknown", code=exc.code, error=exc.message)
                failing = True
            except Exception:
                log.exception("changes_unknown")
            await asyncio.sleep(POLL_SECONDS)

    async def _poll(self) -> None:
        """One round, for all who want one at this moment."""
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._round(), name="changes-round")
        await asyncio.shield(self._polling)

    async def _round(self) -> None:
        began = time.monotonic()
        changes, position = await self._images.changed_since(self._position)
        keys = [each.key for each in changes if not self._is_known(each)]
        for start in range(0, len(keys), _PAGE):
            await self._read(keys[start : start + _PAGE])
        self._position = position
        self._polled_at = began

    def _is_known(self, change: Changed) -> bool:
        """A record that was read for somebody on the way is in the directory before a poll is."""
        followed = self._followed.get(change.key)
        if followed is not None and not followed.knows(change.version):
            return False
        return self.directory.version(change.key) == change.version

    async def _read(self, keys: Sequence[str]) -> None:
        followed = [key for key in keys if key in self._followed]
        # Before anything is waited for: whoever begins to follow meanwhile reads for themselves.
        others = [key for key in keys if key not in self._followed]
        for record in await self._images.get_many(followed):
            self._note(record)
        for key, outline in await self._images.outlines_of(Outline, others):
            self.directory.note(key, outline)

    async def _fill(self) -> None:
        gone = set(self.directory.keys())
        after: str | None = None
        while page := await self._images.outlines(Outline, after=after, limit=_PAGE):
            for key, outline in page:
                self.directory.note(key, outline)
                gone.discard(key)
            after = page[-1][0]
        for key in gone:
            self.directory.drop(key)
