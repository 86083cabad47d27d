"""Placement: weave a recipe into a system's image directory, verify it, and only then name it.

The sidecars come first and the image last, so that whoever sees the image finds all of it. An
image that stands there already, and is what the recipe says, is left alone.
"""

import errno
import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from services.distributor.image_lock import image_lock
from services.distributor.marks import Marks
from services.distributor.sidecars import Access, placed_for, write_sidecars
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError, UnknownSystemError
from shared.events import Event, ImagePlaced, PlacementRequested, PullFailed, Readers
from shared.files import publishing
from shared.image.errors import ImageCorruptError
from shared.image.making.materialise import materialise
from shared.image.making.verify import verify_image
from shared.image.recipe import Recipe
from shared.logging import get_logger
from shared.progress import Part, ProgressReporter
from shared.settings.site import SystemSettings
from shared.states import State
from shared.store.store import PackStore
from shared.store.suspects import SUSPICIOUS, check_store
from shared.threads import in_thread

log = get_logger(__name__)


# What a shared file system says while a server of it fails over: worth another try.
PASSING = frozenset({errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.ENODEV})


class PlacementError(DrayError):
    """The system's file system did not take the image."""

    code = "placement_failed"


class PlacementInterruptedError(PlacementError):
    """The system's file system did not answer, or not as it should, for the moment."""

    code = "placement_interrupted"
    retryable = True


class Placements:
    """Places images on the systems that this distributor serves."""

    def __init__(self, settings: Settings, bus: Bus, store: PackStore) -> None:
        self._settings = settings
        self._systems: Mapping[str, SystemSettings] = settings.systems
        self._bus = bus
        self._store = store
        self._active: set[tuple[str, int]] = set()

    async def on_requested(self, event: PlacementRequested) -> None:
        attempt = (event.key, event.attempt)
        if attempt in self._active:
            log.info("placement_already_here")
            return
        self._active.add(attempt)
        try:
            await self._bus.publish(
                await self._outcome(event), Deadline.after(self._settings.bus.publish_timeout)
            )
        finally:
            self._active.discard(attempt)

    async def _outcome(self, event: PlacementRequested) -> Event:
        try:
            await self._place(event)
        except DrayError as exc:
            log.warning("placement_failed", code=exc.code, error=exc.message)
            return PullFailed.because(event, exc)
        except Exception:
            # A fault of ours would come again at every redelivery: better the user hears now.
            log.exception("placement_failed")
            message = (
                "the distributor met an error of its own; tell the operator to look at its log "
                f"for pull {event.correlation_id}"
            )
            return PullFailed.because(event, DrayError(message))
        log.info("image_placed", image=event.recipe.image_id, system=event.system)
        return ImagePlaced(
            **event.context,
            system=event.system,
            image_id=event.recipe.image_id,
            content_digest=event.recipe.content_digest,
            size=event.recipe.size,
        )

    async def _place(self, event: PlacementRequested) -> None:
        system = self._systems.get(event.system)
        if system is None:
            raise UnknownSystemError(
                f"the distributor has no system '{event.system}' in its settings"
            )
        whole = Part(total=event.recipe.size)
        reporter = ProgressReporter(
            self._bus,
            event,
            lease=self._settings.pull.lease,
            timeout=self._settings.bus.publish_timeout,
        )
        reporter.enter(State.TRANSFER, whole)
        deadline = Deadline.after(self._settings.distributor.placement_timeout)
        async with reporter.running():
            await self._in_thread(event, system.image_dir, whole, deadline)

    async def _in_thread(
        self, event: PlacementRequested, directory: Path, whole: Part, deadline: Deadline
    ) -> None:
        cancelled = threading.Event()
        recipe = event.recipe
        place = partial(
            place_image, recipe, self._store, directory, whole, cancelled, readers=event.readers
        )
        await in_thread(place, cancelled, deadline, f"placing image {recipe.image_id}")


def place_image(
    recipe: Recipe,
    store: PackStore,
    directory: Path,
    whole: Part,
    cancelled: threading.Event,
    *,
    readers: Readers | None = None,
) -> None:
    """Have the image under its final name, whole and durable. Blocks."""
    try:
        # Nobody needs to list it: names would tell of private images, how large and since when.
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        with image_lock(directory, recipe.image_id, cancelled):
            final = directory / f"{recipe.image_id}.squashfs"
            access = placed_for(final, readers)
            _place(recipe, store, final, whole, cancelled, access=access)
            marks = Marks(directory)
            # Whoever was told before that it may be removed was told of the time before.
            marks.renew(recipe.image_id)
            if cancelled.is_set():
                # Too late: it was given up, and nobody will be told that it stands here.
                marks.mark(recipe.image_id)
    except SUSPICIOUS:
        check_store(recipe, store, cancelled)
        raise
    except OSError as exc:
        kind = PlacementInterruptedError if exc.errno in PASSING else PlacementError
        raise kind(
            f"image {recipe.image_id} ({recipe.size} bytes) could not be written to "
            f"{exc.filename or directory}: {exc.strerror}; the operator must look at that file "
            "system's space, quota and permissions"
        ) from exc


def _place(
    recipe: Recipe,
    store: PackStore,
    final: Path,
    whole: Part,
    cancelled: threading.Event,
    *,
    access: Access,
) -> None:
    if _stands(final, recipe, cancelled, access):
        whole.done = whole.total
        return
    with publishing(final) as file:
        os.fchmod(file.fileno(), access.mode)
        materialise(
            recipe,
            store,
            file,
            on_progress=lambda done: setattr(whole, "done", done),
            cancelled=cancelled,
        )
        write_sidecars(final, recipe, access)


def _stands(final: Path, recipe: Recipe, cancelled: threading.Event, access: Access) -> bool:
    """Whether this very image is there already."""
    if not final.is_file():
        return False
    try:
        verify_image(final, recipe, cancelled)
    except (ImageCorruptError, OSError) as exc:
        log.warning("image_placed_again", image=recipe.image_id, error=str(exc))
        return False
    write_sidecars(final, recipe, access)
    return True
