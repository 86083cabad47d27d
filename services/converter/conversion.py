"""From an image at its source to a recipe in the store: the service and `dray convert` share this.

It knows neither bus nor events. Who watches is told of layers and stages; how far each layer is
stands in its Part.
"""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from services.converter.layers import LayerOrder, LayerPacker, PackedLayer
from services.converter.registry.platforms import Platform
from services.converter.sources.bare import read_through
from services.converter.sources.interface import Source, SourceImage, SourceLayer
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.image.codecs import block_codec
from shared.image.errors import PackCorruptError, PackMissingError, StoreUnavailableError
from shared.image.planning.plan import plan_image, read_indexes
from shared.image.recipe import PackKey, PackOptions, Recipe
from shared.logging import get_logger
from shared.progress import Part
from shared.states import State
from shared.store.store import PackStore
from shared.threads import in_thread
from shared.tracing import span

log = get_logger(__name__)

# A disk that damages packs as fast as they are made is not to be fed for ever.
MAX_REPAIRS = 2


class Watcher(Protocol):
    """Somebody who wants to see a conversion go on."""

    def expect(self, parts: dict[str, Part]) -> None:
        """The layers to come, by their names."""

    def enter(self, stage: State, whole: Part | None = None) -> None:
        """A stage has begun; `whole` counts where there are no layers."""


class Examiner(Protocol):
    """Somebody who decides whether an image may come in."""

    def admit(self, image: SourceImage) -> None:
        """An error if it may not, as far as its digests tell.

        Nothing is fetched yet; where only reading tells digests, it is asked again after that.
        """

    async def examine(self, image: SourceImage, watcher: Watcher, deadline: Deadline) -> None:
        """An error if whoever was asked refuses it. All layers are there."""


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """One image, as somebody wants it made."""

    source: Source
    platform: Platform
    options: PackOptions
    max_dead_share: float
    examiner: Examiner | None = None


class Conversion:
    """Makes recipes, and all that they need, in one store."""

    def __init__(self, store: PackStore, packer: LayerPacker, parallel_layers: int) -> None:
        self._store = store
        self._packer = packer
        self._parallel_layers = parallel_layers

    async def recipe(self, order: ImageOrder, watcher: Watcher, deadline: Deadline) -> Recipe:
        """Blocks no loop, leaves no thread behind; of several errors raises all as a group."""
        with span("read manifest"):
            image = await order.source.resolve(order.platform, deadline)
        for note in image.notes:
            log.info("left_out", image=image.called, note=note)
        examiner = order.examiner
        if examiner is not None:
            examiner.admit(image)
        repairs = 0
        while True:
            packed = await self._packed(image, order.options, watcher, deadline)
            keys = [layer.key for layer in packed]
            found = read_through(image, [layer.diff_id for layer in packed])
            if examiner is not None and not repairs:
                if found is not image:
                    examiner.admit(found)
                await examiner.examine(found, watcher, deadline)
            watcher.enter(State.CONVERSION)
            try:
                return await self._planned(packed, found, order, deadline)
            except (PackCorruptError, PackMissingError, FileNotFoundError):
                repairs += 1
                if repairs > MAX_REPAIRS or not await self._removed_damaged(keys, deadline):
                    raise

    async def _packed(
        self, image: SourceImage, options: PackOptions, watcher: Watcher, deadline: Deadline
    ) -> list[PackedLayer]:
        """The packs of all layers, lowest first."""
        # A layer may occur twice in an image; it is fetched once. A blob that is said to be two
        # layers is not: one of them is a lie, which would otherwise never be noticed.
        unique = {layer.identity: layer for layer in image.layers}
        parts = {layer.name: Part(total=layer.size) for layer in unique.values()}
        watcher.expect(parts)
        slots = asyncio.Semaphore(self._parallel_layers)

        async def one(layer: SourceLayer) -> PackedLayer:
            part = parts[layer.name]
            async with slots:
                with span("layer", attributes={"dray.bytes": layer.size}) as packing:
                    made = await self._packer.pack(LayerOrder(layer, options, part, deadline))
                    packing.note({"dray.reused": part.cached})
                    return made

        # A large layer that came last would be packed alone, by one thread's pace.
        largest_first = sorted(unique.values(), key=lambda layer: layer.size, reverse=True)
        async with asyncio.TaskGroup() as group:
            tasks = {layer.identity: group.create_task(one(layer)) for layer in largest_first}
        reused = sum(part.cached for part in parts.values())
        log.info("layers_packed", layers=len(parts), reused=reused)
        return [tasks[layer.identity].result() for layer in image.layers]

    async def _removed_damaged(self, keys: list[PackKey], deadline: Deadline) -> bool:
        """Whether packs were missing or damaged; now they can be made again."""
        cancelled = threading.Event()
        look = partial(self._store.set_aside_unreadable, keys, cancelled)
        return await in_thread(look, cancelled, deadline, "looking for damaged packs") > 0

    async def _planned(
        self, packed: list[PackedLayer], image: SourceImage, order: ImageOrder, deadline: Deadline
    ) -> Recipe:
        cancelled = threading.Event()
        plan = partial(_plan, self._store, packed, image, order, cancelled)
        with span("plan image", attributes={"dray.layers": len(packed)}):
            return await in_thread(plan, cancelled, deadline, "making the image's tables")


def _plan(
    store: PackStore,
    packed: list[PackedLayer],
    image: SourceImage,
    order: ImageOrder,
    cancelled: threading.Event,
) -> Recipe:
    paths = {layer.key: store.pack_path(layer.key) for layer in packed}
    indexes = read_indexes(paths, cancelled=cancelled, limits=image.limits)
    recipe, tables = plan_image(
        [(layer.key, indexes[layer.key]) for layer in packed],
        options=order.options,
        max_dead_share=order.max_dead_share,
        config=image.config,
        source=image.digests,
        codec=block_codec(order.options.compression, order.options.level),
        open_pack=store.open_pack,
        cancelled=cancelled,
        limits=image.limits,
    )
    store.put_tables(tables)
    store.remember(recipe)
    return recipe


def named(error: Exception) -> DrayError | None:
    """Of several layers' errors the first that says something to the user, if one does."""
    errors = list(_leaves(error))
    for known in errors:
        if isinstance(known, DrayError):
            return known
    for failed in errors:
        if isinstance(failed, OSError):
            return StoreUnavailableError.because(failed)
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
