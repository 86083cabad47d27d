"""Placement: weave a recipe into a system's image directory, verify it, and only then name it.

The sidecars come first and the image last, so that whoever sees the image finds all of it. An
image that stands there already, and is what the recipe says, is left alone.
"""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from prometheus_client import Counter, Histogram

from services.distributor.errors import (
    PASSING,
    PlacementError,
    PlacementInterruptedError,
    advice_on,
)
from services.distributor.image_lock import image_lock
from services.distributor.layouts import Laying, is_hot
from services.distributor.marks import Marks
from services.distributor.sidecars import (
    Access,
    Made,
    placed_for,
    read_sidecar,
    write_sidecars,
)
from services.distributor.space import Space
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
from shared.layout import PlacedLayout
from shared.logging import get_logger
from shared.progress import Part, ProgressReporter
from shared.settings.layout import LayoutSettings
from shared.settings.site import SystemSettings
from shared.states import State
from shared.store.store import PackStore
from shared.store.suspects import SUSPICIOUS, check_store
from shared.threads import in_thread
from shared.tracing import span

WRITTEN = Counter("dray_images_written_total", "Images that were written to an image directory.")
WRITTEN_BYTES = Counter("dray_images_written_bytes_total", "Bytes of these images.")
FOUND = Counter(
    "dray_images_found_total", "Images that were to be placed, and stood there already."
)
PLACEMENT_SECONDS = Histogram(
    "dray_placement_seconds",
    "How long it took to have an image stand in its directory, by whether it was written.",
    ("outcome",),
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a system's file system takes images."""

    layout: LayoutSettings = field(default_factory=LayoutSettings)
    reserve: int = 0
    space: Space = field(default_factory=Space)
    seconds: float = 3600.0
    """For what lasts as long as writing the image, and is not told to stop like that."""

    @classmethod
    def of(cls, system: SystemSettings, space: Space, seconds: float) -> Self:
        return cls(system.layout, system.reserve_bytes, space, seconds)


class Placements:
    """Places images on the systems that this distributor serves."""

    def __init__(self, settings: Settings, bus: Bus, store: PackStore, space: Space) -> None:
        self._settings = settings
        self._space = space
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
            layout = await self._place(event)
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
            layout=layout,
        )

    async def _place(self, event: PlacementRequested) -> PlacedLayout | None:
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
            return await self._in_thread(event, system, whole, deadline)

    async def _in_thread(
        self, event: PlacementRequested, system: SystemSettings, whole: Part, deadline: Deadline
    ) -> PlacedLayout | None:
        cancelled = threading.Event()
        recipe = event.recipe
        place = partial(
            place_image,
            recipe,
            self._store,
            system.image_dir,
            whole,
            cancelled,
            readers=event.readers,
            terms=Terms.of(system, self._space, self._settings.distributor.placement_timeout),
            hot=is_hot(event.reference, system.layout),
        )
        return await in_thread(place, cancelled, deadline, f"placing image {recipe.image_id}")


def place_image(
    recipe: Recipe,
    store: PackStore,
    directory: Path,
    whole: Part,
    cancelled: threading.Event,
    *,
    readers: Readers | None = None,
    terms: Terms | None = None,
    hot: bool = False,
) -> PlacedLayout | None:
    """Have the image under its final name, whole and durable; the layout of its file. Blocks."""
    try:
        # Nobody needs to list it: names would tell of private images, how large and since when.
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        with image_lock(directory, recipe.image_id, cancelled):
            final = directory / f"{recipe.image_id}.squashfs"
            access = placed_for(final, readers)
            layout = _place(
                recipe,
                store,
                final,
                whole,
                cancelled,
                access=access,
                terms=terms or Terms(),
                hot=hot,
            )
            marks = Marks(directory)
            # Whoever was told before that it may be removed was told of the time before.
            marks.renew(recipe.image_id)
            if cancelled.is_set():
                # Too late: it was given up, and nobody will be told that it stands here.
                marks.mark(recipe.image_id)
            return layout
    except SUSPICIOUS:
        check_store(recipe, store, cancelled)
        raise
    except OSError as exc:
        kind = PlacementInterruptedError if exc.errno in PASSING else PlacementError
        raise kind(
            f"image {recipe.image_id} ({recipe.size} bytes) could not be written to "
            f"{exc.filename or directory}: {exc.strerror}; {advice_on(exc)}"
        ) from exc


def _place(
    recipe: Recipe,
    store: PackStore,
    final: Path,
    whole: Part,
    cancelled: threading.Event,
    *,
    access: Access,
    terms: Terms,
    hot: bool,
) -> PlacedLayout | None:
    began = time.monotonic()
    if _stands(final, recipe, cancelled):
        made = Made.of(read_sidecar(final))
        write_sidecars(final, recipe, access, made)
        whole.done = whole.total
        FOUND.inc()
        PLACEMENT_SECONDS.labels("found").observe(time.monotonic() - began)
        return made.layout
    layout = write_image(
        recipe, store, final, whole, cancelled, access=access, terms=terms, hot=hot
    )
    PLACEMENT_SECONDS.labels("written").observe(time.monotonic() - began)
    return layout


def write_image(
    recipe: Recipe,
    store: PackStore,
    final: Path,
    whole: Part,
    cancelled: threading.Event,
    *,
    access: Access,
    terms: Terms,
    hot: bool,
) -> PlacedLayout | None:
    """A new file in the place of whatever has its name; who has that open keeps it. Blocks."""
    directory, layout = final.parent, None
    laying = Laying.on(directory, terms.layout, recipe.size, cancelled, hot=hot)
    copies = terms.layout.mirrors if laying is not None and hot else 1
    create = None if laying is None else laying.create
    with (
        terms.space.claimed(directory, whole, copies, terms.reserve),
        publishing(final, create) as file,
    ):
        if laying is not None:
            layout = laying.got(Path(file.name))
        os.fchmod(file.fileno(), access.mode)
        with span("weave", attributes={"dray.bytes": recipe.size}):
            materialise(
                recipe,
                store,
                file,
                on_progress=lambda done: setattr(whole, "done", done),
                cancelled=cancelled,
            )
        write_sidecars(final, recipe, access, Made(layout, hot))
    if laying is not None and layout is not None:
        laying.finish(final, layout, terms.seconds)
    WRITTEN.inc()
    WRITTEN_BYTES.inc(recipe.size)
    return layout


def _stands(final: Path, recipe: Recipe, cancelled: threading.Event) -> bool:
    """Whether this very image is there already."""
    fault = fault_of(final, recipe, cancelled)
    if fault is None:
        return True
    if fault:
        log.warning("image_placed_again", image=recipe.image_id, error=fault)
    return False


def fault_of(final: Path, recipe: Recipe, cancelled: threading.Event) -> str | None:
    """What is wrong with an image that should be there: "" if it is not, None if nothing is."""
    if not final.is_file():
        return ""
    try:
        verify_image(final, recipe, cancelled)
    except (ImageCorruptError, OSError) as exc:
        return str(exc)
    return None
