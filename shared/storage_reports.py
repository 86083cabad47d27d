"""Tells gateways how much room there is where bytes are kept, and what was counted there.

Room is told every few minutes by each process that works there; files are counted by whoever looks
at all of them anyhow. A file system that hangs, or is not there yet, is told of another time.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from shared.bus.interface import Bus
from shared.deadline import Deadline
from shared.events import Counted, StorageReported, new_id
from shared.tasks import cancel_all, repeat
from shared.threads import in_thread

INTERVAL: Final = 300.0
_LOOK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """An image directory (`system`), or a pack store."""

    directory: Path
    free: Callable[[float], None]
    """A gauge that shows its room."""
    system: str | None = None
    reserve: int = 0

    @property
    def store(self) -> str | None:
        if self.system is not None:
            return None
        return sha256(os.fsencode(self.directory)).hexdigest()[:16]


class StorageReports:
    """What one process tells of the places that it works in."""

    def __init__(self, bus: Bus, places: Sequence[Place], publish_timeout: float) -> None:
        self._bus = bus
        self._places = {place.system: place for place in places}
        self._timeout = publish_timeout
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for system in self._places:
            name = "room" if system is None else f"room-{system}"
            loop = repeat(name, INTERVAL, partial(self.tell, system))
            self._tasks.append(asyncio.create_task(loop, name=name))

    async def stop(self) -> None:
        await cancel_all(*self._tasks)

    async def tell(self, system: str | None, counted: Counted | None = None) -> None:
        """How much room a place has now, and what is in it, where that was counted."""
        place = self._places[system]
        looking = partial(_free, place.directory)
        deadline = Deadline.after(_LOOK_SECONDS)
        free = await in_thread(looking, threading.Event(), deadline, "looking for room")
        if free is None:
            return
        place.free(free)
        report = StorageReported(
            correlation_id=new_id(),
            system=system,
            store=place.store,
            counted=counted,
            free_bytes=free,
            reserve_bytes=place.reserve,
        )
        await self._bus.publish(report, Deadline.after(self._timeout))


def _free(directory: Path) -> int | None:
    """None: it is not there, because nothing was ever stored, or it is not mounted."""
    try:
        state = os.statvfs(directory)
    except FileNotFoundError:
        return None
    return state.f_bavail * state.f_frsize
