"""What converters do for the pack store besides filling it: collecting and scrubbing.

Every converter of a store tries; the one that gets the store's lock does it.
"""

import asyncio
import threading
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Final

from prometheus_client import Counter, Gauge

from shared.config import Settings
from shared.deadline import Deadline
from shared.events import Counted
from shared.logging import get_logger
from shared.storage_reports import StorageReports
from shared.store.collect import CollectRules, collect
from shared.store.inventory import Kind
from shared.store.scrub import scrub
from shared.store.store import PackStore
from shared.tasks import cancel_all, repeat
from shared.threads import in_thread

log = get_logger(__name__)

FILES = Gauge("dray_store_files", "Files in the pack store after the last cleaning.", ("kind",))
BYTES = Gauge("dray_store_bytes", "Bytes of packs and tables after the last cleaning.")
FREE = Gauge("dray_store_free_bytes", "Room in the file system of the pack store.")
REMOVED = Counter("dray_store_removed_total", "Files that cleaning removed.", ("kind",))
REMOVED_BYTES = Counter("dray_store_removed_bytes_total", "Bytes that cleaning removed.")
SCRUBBED_BYTES = Counter("dray_store_scrubbed_bytes_total", "Bytes read in search of damage.")

_KINDS: Final[tuple[Kind, ...]] = ("packs", "tables", "recipes")
_DAY: Final = 86400.0
# Far longer than any store's; a file system that hangs must not hold a thread unnoticed.
_COLLECT_SECONDS: Final = 3600.0
_PIECE_SECONDS: Final = 120.0


class Housekeeping:
    """Two background loops over one store."""

    def __init__(self, settings: Settings, store: PackStore, reports: StorageReports) -> None:
        own = settings.housekeeping
        self._store = store
        self._reports = reports
        self._interval = own.interval
        self._rules = CollectRules.of(settings)
        self._scrub_every = own.scrub_days * _DAY
        self._scrub_rate = own.scrub_rate
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loops = {"store_collect": self.collect}
        if self._scrub_every:
            loops["store_scrub"] = self.scrub
        for name, work in loops.items():
            task = asyncio.create_task(repeat(name, self._interval, work), name=name)
            self._tasks.append(task)

    async def stop(self) -> None:
        await cancel_all(*self._tasks)

    async def collect(self) -> None:
        """One round, unless another converter is at it."""
        cancelled = threading.Event()
        work = partial(collect, self._store, self._rules, cancelled)
        deadline = Deadline.after(_COLLECT_SECONDS)
        done = await in_thread(work, cancelled, deadline, "cleaning the pack store")
        if done is None:
            return
        for kind in _KINDS:
            FILES.labels(kind).set(done.files[kind])
            REMOVED.labels(kind).inc(done.removed[kind])
        BYTES.set(done.size)
        REMOVED_BYTES.inc(done.removed_size)
        if done.removed.total():
            log.info("store_cleaned", removed=dict(done.removed), bytes=done.removed_size)
        limit = self._rules.max_bytes
        if limit is not None and done.size > limit:
            log.warning(
                "store_over_limit", bytes=done.size, limit=limit, reason="all of it is in use"
            )
        await self._reports.tell(None, Counted(items=done.files["packs"], bytes=done.size))

    async def scrub(self) -> None:
        """Go on with the pass that is due, no faster than allowed."""
        steps = scrub(self._store, self._scrub_every)
        try:
            while read := await self._next(steps):
                SCRUBBED_BYTES.inc(read)
                await asyncio.sleep(read / self._scrub_rate)
        finally:
            # Still running only where the file system hangs; the lock then dies with us.
            with suppress(ValueError):
                await asyncio.to_thread(steps.close)

    async def _next(self, steps: Generator[int, None, bool]) -> int | None:
        deadline = Deadline.after(_PIECE_SECONDS)
        step = partial(next, steps, None)
        return await in_thread(step, threading.Event(), deadline, "reading the pack store")
