"""Removal: an image goes when a gateway says so, and its bytes only after a grace.

The distributor marks what a reference has dropped and asks whether it may go, again and again,
until it is told. What goes is renamed into a hidden directory of the same file system, so that
whoever has it mounted keeps it even where unlinked files are not kept (NFS), and is deleted when
its grace is over. Every step can be repeated; a crash between two of them leaves the mark behind.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client import Counter

from services.distributor.image_lock import image_lock_if_free
from services.distributor.marks import REMOVAL, Marks
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError, UnknownSystemError
from shared.events import (
    Event,
    ImageExpired,
    ImageExpireRequested,
    RemovalDecided,
    RemovalProposed,
    new_id,
)
from shared.files import sync_directory
from shared.logging import get_logger
from shared.models import ImageId
from shared.tasks import cancel_all, repeat
from shared.threads import in_thread

T = TypeVar("T")

# Some system calls each: whoever needs longer has a file system that hangs.
_SECONDS: Final = 60.0
_SIDECARS: Final = (".meta", ".json")
_REMOVED: Final = ".removed"
ASKED_AT_ONCE: Final = 500

REMOVED = Counter("dray_images_removed_total", "Images that were taken from an image directory.")
FREED = Counter("dray_images_freed_bytes_total", "Bytes of removed images that were deleted.")

log = get_logger(__name__)


class Removals:
    """Removes images from the systems that this distributor serves."""

    def __init__(self, settings: Settings, bus: Bus, systems: Sequence[str]) -> None:
        self._bus = bus
        self._directories = {name: settings.systems[name].image_dir for name in systems}
        self._interval = settings.distributor.removal_interval
        self._grace = settings.distributor.removal_grace
        self._timeout = settings.bus.publish_timeout
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for system in self._directories:
            name = f"removal-{system}"
            tending = repeat(name, self._interval, partial(self.tend, system))
            self._tasks.append(asyncio.create_task(tending, name=name))

    async def stop(self) -> None:
        await cancel_all(*self._tasks)

    async def on_expire_requested(self, event: ImageExpireRequested) -> None:
        directory = self._directory(event.system)
        mark = await self._bounded(partial(mark_if_there, directory, event.image_id))
        if mark is None:
            await self._gone(event.correlation_id, event.system, event.image_id)
        else:
            await self._propose(event.correlation_id, event.system, event.image_id, mark)

    async def on_decided(self, event: RemovalDecided) -> None:
        directory = self._directory(event.system)
        decide = take_away if event.remove else forget
        done = await self._bounded(partial(decide, directory, event.image_id, event.mark))
        if done and event.remove:
            REMOVED.inc()
            log.info("image_removed", image=event.image_id, system=event.system)
            await self._gone(event.correlation_id, event.system, event.image_id)

    async def tend(self, system: str) -> None:
        """Ask about marks that nobody has decided about, and end what has no grace left."""
        directory = self._directories[system]
        waiting = Marks(directory).waiting
        marked = await self._bounded(lambda: list(waiting(self._interval, ASKED_AT_ONCE)))
        for image_id, mark in marked:
            await self._propose(new_id(), system, image_id, mark)
        # Last, since it may take longest: large files go slowly.
        FREED.inc(await self._bounded(partial(delete_removed, directory, self._grace)))

    async def _propose(self, cause: str, system: str, image_id: ImageId, mark: str) -> None:
        await self._publish(
            RemovalProposed(correlation_id=cause, system=system, image_id=image_id, mark=mark)
        )

    async def _gone(self, cause: str, system: str, image_id: ImageId) -> None:
        await self._publish(ImageExpired(correlation_id=cause, system=system, image_id=image_id))

    async def _publish(self, event: Event) -> None:
        try:
            await self._bus.publish(event, Deadline.after(self._timeout))
        except DrayError as exc:  # the mark stays, or the gateway asks again
            log.warning("removal_not_told", code=exc.code, error=exc.message)

    async def _bounded(self, work: Callable[[], T]) -> T:
        deadline = Deadline.after(_SECONDS)
        return await in_thread(
            work, threading.Event(), deadline, "looking after an image directory"
        )

    def _directory(self, system: str) -> Path:
        directory = self._directories.get(system)
        if directory is None:
            raise UnknownSystemError(f"this distributor does not serve a system '{system}'")
        return directory


def mark_if_there(directory: Path, image_id: ImageId) -> str | None:
    """Mark whatever of the image stands; None: nothing does, and nothing is marked."""
    marks = Marks(directory)
    names = (".squashfs", *_SIDECARS)
    if any((directory / f"{image_id}{kind}").exists() for kind in names):
        return marks.mark(image_id)
    return marks.read(image_id)


def take_away(directory: Path, image_id: ImageId, mark: str) -> bool:
    """Whether the image bore this mark, and is gone now. Blocks for some system calls."""
    marks = Marks(directory)
    with image_lock_if_free(directory, image_id) as free:
        # Where somebody is placing it, the mark is about to become another.
        if not free or marks.read(image_id) != mark:
            return False
        removed = f"{image_id}.{int(time.time())}.{secrets.token_hex(6)}{_REMOVED}"
        with suppress(FileNotFoundError):  # a crash came between this and the mark's end
            (directory / f"{image_id}.squashfs").replace(directory / REMOVAL / removed)
        # After the image, so that nobody ever sees it without them.
        for kind in _SIDECARS:
            (directory / f"{image_id}{kind}").unlink(missing_ok=True)
        sync_directory(directory)
        marks.forget_unknown(image_id)
        marks.forget(image_id, mark)
        return True


def forget(directory: Path, image_id: ImageId, mark: str) -> bool:
    """The image stays: whether it bore this mark, and does not any more."""
    return Marks(directory).forget(image_id, mark)


def delete_removed(directory: Path, grace: float) -> int:
    """Delete what was removed longer ago than the grace; how many bytes they were."""
    freed = 0
    before = time.time() - grace
    for path in (directory / REMOVAL).glob(f"*{_REMOVED}"):
        when = path.name.split(".")[1]
        if when.isdigit() and int(when) <= before:
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue  # another distributor was faster
            except OSError as exc:  # the others' room is wanted, too
                log.warning("removed_not_deleted", file=path.name, error=exc.strerror)
                continue
            freed += size
    return freed
