"""Makes images again that are missing or damaged, out of what their sidecar says and the packs.

A new file takes the place of the old one, so that nobody ever sees half an image, and whoever has
the old one mounted keeps it. What cannot be made again is told to a gateway, which then stands for
it no more; what cannot be decided now, because a file system does not answer, is left for the next
time.
"""

import asyncio
import threading
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import Counter

from services.distributor.errors import PASSING, PlacementError
from services.distributor.image_lock import image_lock
from services.distributor.inventory import require_present
from services.distributor.marks import Marks
from services.distributor.placement import Terms, fault_of, write_image
from services.distributor.sidecars import Access, read_sidecar
from shared.bus.interface import Bus
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import ImageLost, new_id
from shared.events.base import MAX_TEXT
from shared.logging import get_logger
from shared.models import ImageId, utcnow
from shared.progress import Part
from shared.store.store import PackStore
from shared.store.suspects import SUSPICIOUS, check_store
from shared.tasks import cancel_all
from shared.threads import in_thread

MOST_WAITING: Final = 1000

DAMAGED = Counter(
    "dray_images_damaged_total",
    "Images that were missing or damaged where they should stand, by what came of it.",
    ("outcome",),
)
# From 0, so that the first one is seen as a rise.
for _outcome in ("mended", "lost", "later"):
    DAMAGED.labels(_outcome)

log = get_logger(__name__)


class Outcome(StrEnum):
    """What became of an image that was looked at."""

    SOUND = "sound"
    MENDED = "mended"
    LEAVING = "leaving"
    """Somebody is deciding whether it may go: not our time."""


class ImageLostError(DrayError):
    """An image is missing or damaged, and cannot be made again here."""

    code = "image_lost"


def mend(
    directory: Path,
    image_id: ImageId,
    store: PackStore,
    terms: Terms,
    cancelled: threading.Event,
) -> Outcome:
    """Have the image as its sidecar says. Blocks.

    ImageLostError says that it is not and cannot be so; other errors say nothing about it.
    """
    final = directory / f"{image_id}.squashfs"
    require_present(directory)
    with image_lock(directory, image_id, cancelled):
        if Marks(directory).read(image_id) is not None:
            return Outcome.LEAVING
        sidecar = read_sidecar(final)
        if sidecar is None:
            require_present(directory)
            raise ImageLostError(
                f"{final.name} has no readable description beside it"
                if final.exists()
                else f"{final.name} is not there"
            )
        recipe = sidecar.recipe
        if recipe.image_id != image_id:
            raise ImageLostError(f"{final.name} has the description of another image")
        fault = fault_of(final, recipe, cancelled)
        if fault is None:
            return Outcome.SOUND
        fault = fault or f"{final.name} is not there"
        log.warning("image_damaged", image=image_id, fault=fault)
        try:
            write_image(
                recipe,
                store,
                final,
                Part(total=recipe.size),
                cancelled,
                access=Access.of(sidecar),
                terms=terms,
                hot=sidecar.hot,
            )
        except SUSPICIOUS as exc:
            check_store(recipe, store, cancelled)
            raise ImageLostError(f"{fault}; {exc.message}") from exc
        except PlacementError as exc:
            raise ImageLostError(f"{fault}; {exc.message}") from exc
        return Outcome.MENDED


class Mender:
    """One image after the other, for the systems of this distributor."""

    def __init__(
        self,
        directories: Mapping[str, Path],
        terms: Mapping[str, Terms],
        bus: Bus,
        store: PackStore,
        *,
        seconds: float,
        publish_timeout: float,
    ) -> None:
        self._directories = directories
        self._terms = terms
        self._bus = bus
        self._store = store
        self._seconds = seconds
        self._timeout = publish_timeout
        self._waiting: asyncio.Queue[tuple[str, ImageId]] = asyncio.Queue(MOST_WAITING)
        self._known: set[tuple[str, ImageId]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name="mending")]

    async def stop(self) -> None:
        await cancel_all(*self._tasks)

    def want(self, system: str, image_id: ImageId) -> None:
        """Have it looked at soon; where too many wait, the next look at all finds it again."""
        wanted = (system, image_id)
        if wanted not in self._known and not self._waiting.full():
            self._known.add(wanted)
            self._waiting.put_nowait(wanted)

    async def look(self, system: str, image_id: ImageId) -> Outcome | None:
        """None where it is lost, or nothing can be said for now."""
        as_of = utcnow()
        cancelled = threading.Event()
        work = partial(
            mend, self._directories[system], image_id, self._store, self._terms[system], cancelled
        )
        doing = f"looking after image {image_id}"
        try:
            outcome = await in_thread(work, cancelled, Deadline.after(self._seconds), doing)
        except (*SUSPICIOUS, ImageLostError) as exc:
            DAMAGED.labels("lost").inc()
            log.warning("image_lost", image=image_id, system=system, error=exc.message)
            lost = ImageLost(
                correlation_id=new_id(),
                system=system,
                image_id=image_id,
                as_of=as_of,
                message=exc.message[:MAX_TEXT],
            )
            await self._bus.publish(lost, Deadline.after(self._timeout))
            return None
        except DrayError as exc:
            DAMAGED.labels("later").inc()
            log.warning("image_not_mended", image=image_id, code=exc.code, error=exc.message)
            return None
        except OSError as exc:
            DAMAGED.labels("later").inc()
            passing = exc.errno in PASSING
            log.warning("image_not_mended", image=image_id, passing=passing, error=exc.strerror)
            return None
        if outcome is Outcome.MENDED:
            DAMAGED.labels("mended").inc()
            log.info("image_mended", image=image_id, system=system)
        return outcome

    async def _work(self) -> None:
        while True:
            wanted = await self._waiting.get()
            try:
                await self.look(*wanted)
            except DrayError as exc:  # not told: the next look at all finds it again
                log.warning("image_loss_not_told", code=exc.code, error=exc.message)
            except Exception:  # one image must not keep all others from being mended
                log.exception("image_not_mended", image=wanted[1])
            finally:
                self._known.discard(wanted)
