"""Looks after image directories: leftovers, what the catalog says of them, and damage.

Every distributor of a system tries; the one that gets the directory's lock does it. A gateway
answers with what it expects, page by page, to whichever distributor is free.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client import Counter, Gauge

from services.distributor.image_lock import remove_stale_locks
from services.distributor.inventory import (
    ImageDirectoryAbsentError,
    batches,
    files_and_bytes,
    not_as_expected,
    note_unknown,
    ours,
    seconds_since_last,
)
from services.distributor.mending import Mender
from services.distributor.scrub import Steps, Suspect, scrub
from shared.bus.interface import Bus
from shared.deadline import Deadline
from shared.errors import DrayError, UnknownSystemError
from shared.events import (
    Counted,
    Event,
    InventoryExpected,
    InventoryFound,
    InventoryRequested,
    InventoryUnknown,
    new_id,
)
from shared.events.inventory import MOST_IMAGES
from shared.files import remove_stale_partials
from shared.logging import get_logger
from shared.models import ImageId
from shared.settings.workers import DistributorSettings
from shared.storage_reports import StorageReports
from shared.store.locks import release, try_lock
from shared.tasks import cancel_all, repeat
from shared.threads import in_thread

T = TypeVar("T")

LOCK: Final = ".inventory.lock"
_DAY: Final = 86400.0
# Far longer than any directory's; a file system that hangs must not hold a thread unnoticed.
_SECONDS: Final = 3600.0
_STEP_SECONDS: Final = 600.0
# Beyond the time that a placement may take: whoever writes is told to stop long before that.
_FOREIGN_EXTRA: Final = 600.0

IMAGES = Gauge(
    "dray_image_directory_images", "Images that were found at the last look.", ("system",)
)
PARTIALS = Counter("dray_stale_partials_removed_total", "What dead distributors left half-made.")
UNKNOWN = Counter("dray_images_unknown_total", "Images that the catalog turned out not to know.")
SCRUBBED = Counter("dray_images_scrubbed_bytes_total", "Bytes of images read in search of damage.")

log = get_logger(__name__)


class Upkeep:
    """Two loops for each system, and what gateways answer."""

    def __init__(
        self,
        directories: Mapping[str, Path],
        settings: DistributorSettings,
        bus: Bus,
        mender: Mender,
        reports: StorageReports,
        *,
        publish_timeout: float,
    ) -> None:
        self._directories = directories
        self._settings = settings
        self._bus = bus
        self._mender = mender
        self._reports = reports
        self._timeout = publish_timeout
        self._looked: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loops = {"inventory": self.take_stock}
        if self._settings.scrub_days:
            loops["scrub"] = self.scrub
        for system in self._directories:
            for what, work in loops.items():
                name = f"{what}-{system}"
                loop = repeat(name, self._settings.reconcile_interval, partial(work, system))
                self._tasks.append(asyncio.create_task(loop, name=name))

    async def stop(self) -> None:
        await cancel_all(*self._tasks)

    async def clear(self) -> None:
        """Make room, before work is taken, of what this machine left half-made when it died."""
        for system, directory in self._directories.items():
            try:
                PARTIALS.inc(await self._bounded(partial(self._remove_leftovers, directory)))
            except (DrayError, OSError) as exc:
                log.warning("leftovers_not_removed", system=system, error=str(exc))

    async def take_stock(self, system: str) -> None:
        """Say what stands in a system's directory, and ask what should; once, at the start, in any
        case, and then unless another distributor has just done it."""
        at_least = 0.0 if system not in self._looked else self._settings.reconcile_interval / 2
        work = partial(self._look, self._directories[system], at_least)
        looked = await self._bounded(work)
        self._looked.add(system)
        if looked is None:
            return
        removed, images, counted = looked
        IMAGES.labels(system).set(len(images))
        PARTIALS.inc(removed)
        for batch in batches(images, MOST_IMAGES):
            found = InventoryFound(correlation_id=new_id(), system=system, images=batch)
            await self._publish(found)
            await asyncio.sleep(0)  # a bus in memory would take all of them at once
        await self._publish(InventoryRequested(correlation_id=new_id(), system=system))
        await self._reports.tell(system, counted)

    def _look(self, directory: Path, at_least: float) -> tuple[int, list[ImageId], Counted] | None:
        """Leftovers that were removed, images that are none of the youngest, and all. Blocks."""
        if not directory.is_dir():  # nothing was ever placed, or it is not mounted
            return None
        lock = try_lock(directory / LOCK, create=True)
        if lock is None:
            return None
        try:
            since = seconds_since_last(directory)
            if since is not None and since < at_least:
                return None
            removed = self._remove_leftovers(directory)
            images = ours(directory, self._settings.reconcile_grace)
            items, size = files_and_bytes(directory)
            return removed, images, Counted(items=items, bytes=size)
        finally:
            release(lock, directory / LOCK)

    def _remove_leftovers(self, directory: Path) -> int:
        foreign_after = self._settings.placement_timeout + _FOREIGN_EXTRA
        removed = remove_stale_partials(directory, foreign_after=foreign_after)
        remove_stale_locks(directory)
        return removed

    async def on_expected(self, event: InventoryExpected) -> None:
        directory = self._directory(event.system)
        grace = self._settings.reconcile_grace
        work = partial(not_as_expected, directory, event.images, grace)
        try:
            wrong = await self._bounded(work) if event.images else []
        except ImageDirectoryAbsentError as exc:
            log.error("image_directory_absent", system=event.system, error=exc.message)  # noqa: TRY400
            return
        for image_id in wrong:
            self._mender.want(event.system, image_id)
        if event.next is not None:
            await self._publish(
                InventoryRequested(
                    correlation_id=event.correlation_id,
                    causation_id=event.id,
                    system=event.system,
                    after=event.next,
                )
            )

    async def on_unknown(self, event: InventoryUnknown) -> None:
        directory = self._directory(event.system)
        work = partial(note_unknown, directory, event.images, self._settings.unknown_grace)
        marked, fresh = await self._bounded(work)
        UNKNOWN.inc(fresh)
        if marked or fresh:
            log.warning("images_unknown", system=event.system, new=fresh, asked_to_go=marked)

    async def scrub(self, system: str) -> None:
        """Go on with the pass that is due, no faster than allowed."""
        directory = self._directories[system]
        if not await asyncio.to_thread(directory.is_dir):
            return
        steps = scrub(directory, self._settings.scrub_days * _DAY)
        try:
            while (step := await self._next(steps)) is not None:
                if isinstance(step, Suspect):
                    log.warning("image_suspect", image=step.image_id, fault=step.fault)
                    await self._mender.look(system, step.image_id)
                else:
                    SCRUBBED.inc(step)
                    await asyncio.sleep(step / self._settings.scrub_rate)
        finally:
            # Still running only where the file system hangs; the lock then dies with us.
            with suppress(ValueError):
                await asyncio.to_thread(steps.close)

    async def _next(self, steps: Steps) -> int | Suspect | None:
        step = partial(next, steps, None)
        deadline = Deadline.after(_STEP_SECONDS)
        return await in_thread(step, threading.Event(), deadline, "reading an image")

    async def _publish(self, event: Event) -> None:
        await self._bus.publish(event, Deadline.after(self._timeout))

    async def _bounded(self, work: Callable[[], T]) -> T:
        deadline = Deadline.after(_SECONDS)
        return await in_thread(work, threading.Event(), deadline, "looking at an image directory")

    def _directory(self, system: str) -> Path:
        directory = self._directories.get(system)
        if directory is None:
            raise UnknownSystemError(f"this distributor does not serve a system '{system}'")
        return directory
