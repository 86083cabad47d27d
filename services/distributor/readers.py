"""Who may use an image that is placed: what the gateway says goes into its sidecars.

Each word of the gateway has a number that only grows, so that one that comes late or twice changes
nothing. Where the image is not there nothing is to be done: its placement will say who may use it.
"""

import threading
from functools import partial
from pathlib import Path

from services.distributor.image_lock import image_lock
from services.distributor.sidecars import Access, Made, read_sidecar, write_sidecars
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import ReadersChanged
from shared.logging import get_logger
from shared.models import ImageId
from shared.threads import in_thread

log = get_logger(__name__)


class ReaderFiles:
    """The sidecars of the systems that this distributor serves."""

    def __init__(self, settings: Settings) -> None:
        self._systems = settings.systems
        # As long as a placement may hold the image's lock.
        self._seconds = settings.distributor.placement_timeout

    async def on_changed(self, event: ReadersChanged) -> None:
        system = self._systems.get(event.system)
        if system is None:
            log.warning("readers_of_unknown_system", system=event.system)
            return
        cancelled = threading.Event()
        access = Access(event.readers, event.revision)
        work = partial(change_readers, system.image_dir, event.image_id, access, cancelled)
        deadline = Deadline.after(self._seconds)
        if await in_thread(work, cancelled, deadline, f"naming who may use {event.image_id}"):
            log.info("readers_written", image=event.image_id, revision=event.revision)


def change_readers(
    directory: Path, image_id: ImageId, access: Access, cancelled: threading.Event
) -> bool:
    """Whether that was news. Blocks."""
    if not directory.is_dir():
        return False
    with image_lock(directory, image_id, cancelled):
        image = directory / f"{image_id}.squashfs"
        sidecar = read_sidecar(image)
        if sidecar is None or sidecar.revision >= access.revision:
            return False
        write_sidecars(image, sidecar.recipe, access, Made.of(sidecar))
        return True
