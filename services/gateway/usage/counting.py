"""Counting: in memory at once, in the catalog every few seconds.

There is one document for each system, hour, user and image, to which all gateways add by
compare-and-set. A crash loses what was counted since the last flush; a flush that the catalog did
not confirm is repeated, and may count twice. For statistics that is good enough, and a lookup of
an image never waits for any of it.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Final, Literal, NamedTuple, Protocol

from services.gateway.metrics import LOOKUPS, USAGE_DROPPED, USAGE_FLUSHED, USAGE_WAITING
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import UsageRecord
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, DeadlineExceededError, DrayError
from shared.logging import get_logger

log = get_logger(__name__)

MOST_WAITING: Final = 10_000
"""Documents that may wait for a flush: some megabytes. What is new beyond them is not counted."""
AT_ONCE: Final = 8
TOGETHER: Final = 100
"""Documents in one transaction: some milliseconds, in which the loop does nothing else."""
HOUR: Final = "%Y-%m-%dT%H"
HOUR_SECONDS: Final = 3600.0

UsageKind = Literal["lookups", "pulls", "jobs"]


class Somebody(Protocol):
    """A user: a principal, or whom a record names."""

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> int | None: ...


class UsedImage(Protocol):
    """An image's record, or its outline."""

    @property
    def system(self) -> str: ...
    @property
    def reference(self) -> str: ...
    @property
    def image_id(self) -> str | None: ...
    @property
    def private(self) -> bool: ...
    @property
    def owner(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class User:
    """Somebody of whom no more is known than this."""

    name: str
    uid: int | None


class Subject(NamedTuple):
    """What one document counts. A tuple, since one is made for each lookup."""

    hour: str
    system: str
    user: str
    uid: int | None
    reference: str
    image_id: str | None
    private: bool
    owner: int | None

    @property
    def key(self) -> str:
        """The same for every gateway, and bounded whatever a user or a reference is called."""
        digest = sha256(json.dumps(self).encode()).hexdigest()
        return f"{self.hour}/{digest[:40]}"


@dataclass(slots=True)
class Count:
    """How often, and when last (seconds of the epoch)."""

    last: float
    lookups: int = 0
    pulls: int = 0
    jobs: int = 0

    @property
    def uses(self) -> int:
        return self.lookups + self.pulls + self.jobs

    def add(self, other: "Count") -> None:
        self.last = max(self.last, other.last)
        self.lookups += other.lookups
        self.pulls += other.pulls
        self.jobs += other.jobs


class Counting:
    """What this gateway counted and the catalog does not know yet."""

    def __init__(self, catalog: Catalog, *, interval: float, timeout: float) -> None:
        self._catalog = catalog
        self._interval = interval
        self._timeout = timeout
        self._waiting: dict[Subject, Count] = {}
        self._lookups = 0
        self._hour, self._hour_began = "", float("-inf")
        self._flushing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def note(self, kind: UsageKind, who: Somebody, image: UsedImage) -> bool:
        """Count one use, without waiting or failing; whether it is the first since the flush."""
        now = time.time()
        if not 0 <= now - self._hour_began < HOUR_SECONDS:
            self._hour_began = now // HOUR_SECONDS * HOUR_SECONDS
            self._hour = time.strftime(HOUR, time.gmtime(now))
        subject = Subject(
            self._hour,
            image.system,
            who.name,
            who.uid,
            image.reference,
            image.image_id,
            image.private,
            image.owner,
        )
        count = self._waiting.get(subject)
        first = count is None
        self._lookups += kind == "lookups"
        if count is None:
            if len(self._waiting) >= MOST_WAITING:
                USAGE_DROPPED.inc()
                return True
            count = self._waiting[subject] = Count(now)
        count.last = now
        setattr(count, kind, getattr(count, kind) + 1)
        return first

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="usage-flush")

    async def stop(self, deadline: Deadline) -> None:
        """Store what is left, as far as the deadline allows."""
        self._stopping.set()
        if self._running is not None:
            with suppress(DeadlineExceededError):
                async with deadline.bound("storing what was used"):
                    await asyncio.shield(self._running)
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def flush(self) -> None:
        """Add to the catalog what was counted so far; what fails waits for the next time."""
        async with self._flushing:
            taken, self._waiting = self._waiting, {}
            LOOKUPS.inc(self._lookups)
            self._lookups = 0
            try:
                await self._add_together(taken)
                subjects = iter(tuple(taken))
                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        group.create_task(self._add_each(subjects, taken))
            finally:
                for subject, count in taken.items():
                    self._wait_again(subject, count)
                USAGE_WAITING.set(len(self._waiting))

    async def _run(self) -> None:
        ending = False
        while not ending:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._interval)
            ending = self._stopping.is_set()  # once more then, for what was used until now
            try:
                await self.flush()
            except Exception:  # the next round may do better, and others must not suffer
                log.exception("usage_not_stored")

    async def _add_together(self, taken: dict[Subject, Count]) -> None:
        """Store and forget all but those that another gateway changes at this moment."""
        subjects = tuple(taken)
        for start in range(0, len(subjects), TOGETHER):
            keys = {subject.key: subject for subject in subjects[start : start + TOGETHER]}
            steps = {
                key: partial(_added, subject=subject, count=taken[subject])
                for key, subject in keys.items()
            }
            try:
                overtaken = await self._catalog.usage.change_all(
                    steps, Deadline.after(self._timeout)
                )
            except CatalogUnavailableError:
                return  # one by one they will say so
            for key in keys.keys() - overtaken:
                USAGE_FLUSHED.inc()
                del taken[keys[key]]

    async def _add_each(self, subjects: Iterator[Subject], taken: dict[Subject, Count]) -> None:
        """Store and forget what `subjects` gives; whoever comes to its end ends."""
        for subject in subjects:
            step = partial(_added, subject=subject, count=taken[subject])
            try:
                await self._catalog.usage.change(subject.key, step, Deadline.after(self._timeout))
            except CatalogUnavailableError as exc:
                log.warning("usage_waits", documents=len(taken), error=exc.message)
                return
            except DrayError as exc:
                log.warning("usage_not_stored", key=subject.key, error=exc.message)
                if exc.retryable:
                    continue
                USAGE_DROPPED.inc(taken[subject].uses)
            else:
                USAGE_FLUSHED.inc()
            del taken[subject]

    def _wait_again(self, subject: Subject, count: Count) -> None:
        waiting = self._waiting.get(subject)
        if waiting is not None:
            waiting.add(count)
        elif len(self._waiting) < MOST_WAITING:
            self._waiting[subject] = count
        else:
            USAGE_DROPPED.inc(count.uses)


def _added(found: UsageRecord | None, subject: Subject, count: Count) -> Change[UsageRecord]:
    last = datetime.fromtimestamp(count.last, UTC)
    if found is None:
        found = UsageRecord(
            key=subject.key,
            system=subject.system,
            hour=subject.hour,
            uid=subject.uid,
            user=subject.user,
            reference=subject.reference,
            image_id=subject.image_id,
            private=subject.private,
            owner=subject.owner,
            last=last,
        )
    last = max(found.last, last)
    return Change(
        found.but(
            lookups=found.lookups + count.lookups,
            pulls=found.pulls + count.pulls,
            jobs=found.jobs + count.jobs,
            last=last,
            due_at=last,
        )
    )
