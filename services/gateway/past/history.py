"""Keeps figures of each minute in the catalog, so that charts survive restarts of any gateway.

At the end of a minute every gateway looks how things stand; the first one's look is stored. What
happened within it, each gateway counts for itself: a change of a record is made by one gateway
alone, so that nothing is counted twice. While the catalog is away, what is to be stored waits.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol

from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord
from shared.catalog.standing_records import MOST_PARTS, MinuteRecord
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, DrayError
from shared.events import new_id
from shared.logging import get_logger
from shared.models import utcnow
from shared.states import State
from shared.tasks import cancel_all, repeat

STEP: Final = timedelta(minutes=1)
KEEP: Final = timedelta(hours=48)
MOST_WAITING: Final = 120
"""Minutes that wait for a catalog that is away; older ones are given up."""
COUNTED: Final = ("pulls_ready_total", "pulls_failed_total", "placed_bytes_total")
STOOD: Final = (
    "pulls_waiting",
    "pulls_running",
    "oldest_wait_seconds",
    "queue_events",
    "dead_letters",
    "nodes_alive",
    "nodes_lost",
    "jobs_running",
    "job_nodes_pending",
    "job_nodes_failed",
    "images",
    "image_bytes",
    "pack_bytes",
)
_FORGET_SECONDS: Final = 600.0
_BATCH: Final = 500
_LOOK_SECONDS: Final = 10.0
_MINUTE: Final = len("2026-11-21T09:41")

log = get_logger(__name__)


class Figures(Protocol):
    """Whoever knows some of the figures."""

    async def figures(self) -> Mapping[str, float | None]:
        """By their names; what is not known now is absent, or None."""


@dataclass(slots=True)
class _Minute:
    """What is still to be stored of one minute."""

    stood: dict[str, float] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)


class History:
    """What this gateway adds to the catalog's history."""

    def __init__(self, catalog: Catalog, sources: Sequence[Figures], timeout: float) -> None:
        self._history = catalog.history
        self._sources = sources
        self._timeout = timeout
        self._id = new_id()[:12]
        self._waiting: dict[datetime, _Minute] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        forgetting = repeat("history-retention", _FORGET_SECONDS, self.forget)
        self._tasks = [
            asyncio.create_task(self._run(), name="history"),
            asyncio.create_task(forgetting, name="history-retention"),
        ]

    async def stop(self, deadline: Deadline) -> None:
        """Before the catalog is closed: what was counted is stored, as far as there is time."""
        await cancel_all(*self._tasks)
        with suppress(DeadlineExceededError):
            async with deadline.bound("storing the last figures"):
                await self.store()

    def pull_changed(self, before: ImageRecord | None, after: ImageRecord) -> None:
        """Count a pull that has ended."""
        if before is None or not before.state.in_flight or after.state.in_flight:
            return
        counted = self._minute(ending(utcnow())).counted
        if after.state is not State.READY:
            _add(counted, "pulls_failed_total", 1)
            return
        _add(counted, "pulls_ready_total", 1)
        if after.current is not None and after.current != before.current:
            _add(counted, "placed_bytes_total", after.current.size)

    async def look(self, minute: datetime) -> None:
        """How things stand now, at the end of this minute."""
        stood = self._minute(minute).stood
        for source in self._sources:
            try:
                async with Deadline.after(_LOOK_SECONDS).bound("looking how things stand"):
                    known = await source.figures()
            except DrayError as exc:
                log.warning("figures_unknown", code=exc.code, error=exc.message)
            else:
                for name in STOOD:
                    if (value := known.get(name)) is not None:
                        stood[name] = value

    async def store(self) -> None:
        """All that waits; what the catalog does not take waits on."""
        for minute, waiting in sorted(self._waiting.items()):
            over = minute <= utcnow()  # nothing more is counted for it
            step = partial(self._added, minute=minute, waiting=waiting)
            try:
                deadline = Deadline.after(self._timeout)
                await self._history.change(key_of(minute), step, deadline)
            except DrayError as exc:
                log.warning("history_waits", minutes=len(self._waiting), error=exc.message)
                return
            if over:
                self._waiting.pop(minute, None)

    async def forget(self) -> None:
        while await self._history.forget(utcnow() - KEEP, _BATCH) == _BATCH:
            continue

    async def _run(self) -> None:
        while True:
            minute = ending(utcnow())
            await asyncio.sleep((minute - utcnow()).total_seconds())
            try:
                await self.look(minute)
                await self.store()
            except Exception:
                log.exception("history_not_kept")

    def _minute(self, minute: datetime) -> _Minute:
        waiting = self._waiting.setdefault(minute, _Minute())
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[min(self._waiting)]
        return waiting

    def _added(
        self, found: MinuteRecord | None, minute: datetime, waiting: _Minute
    ) -> Change[MinuteRecord] | None:
        record = found or MinuteRecord(key=key_of(minute), due_at=minute)
        stood = {**waiting.stood, **record.stood}
        counted = dict(record.counted)
        if waiting.counted and (self._id in counted or len(counted) < MOST_PARTS):
            counted[self._id] = dict(waiting.counted)
        if (stood, counted) == (record.stood, record.counted):
            return None
        return Change(record.but(stood=stood, counted=counted))


def ending(now: datetime) -> datetime:
    """When the minute ends that is running."""
    return now.astimezone(UTC).replace(second=0, microsecond=0) + STEP


def key_of(minute: datetime) -> str:
    return minute.astimezone(UTC).isoformat()[:_MINUTE]


def _add(counted: dict[str, int], name: str, number: int) -> None:
    counted[name] = counted.get(name, 0) + number
