"""Pulls and freshness checks: the converter's two kinds of work."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from functools import partial

from services.converter.layers import LayerOrder, LayerPacker
from services.converter.registries import Registries
from services.converter.registry.client import ResolvedImage, ResolvedLayer
from services.converter.registry.errors import ImageLimitError
from services.converter.registry.platforms import parse_platform
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import (
    MAX_EVENT_BYTES,
    Event,
    ImageChanged,
    ImageConverted,
    ImageUnchanged,
    PullFailed,
    PullRequested,
    RefreshRequested,
)
from shared.image.codecs import block_codec
from shared.image.plan import plan_image, read_indexes
from shared.image.recipe import PackKey, PackOptions, Recipe
from shared.image.store import PackStore
from shared.logging import get_logger
from shared.models import Digest, ImageId
from shared.progress import Part, ProgressReporter
from shared.reference import parse_reference
from shared.states import State
from shared.threads import in_thread

log = get_logger(__name__)

CHECK_SECONDS = 60.0
# A recipe travels in events, with room for what an event says beside it.
MAX_RECIPE_BYTES = MAX_EVENT_BYTES // 2


class StoreUnavailableError(DrayError):
    """The pack store's file system does not take or give what it should."""

    code = "store_unavailable"
    status = 503
    retryable = True


class Pulls:
    """Turns references into recipes, one attempt at a time for each."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        registries: Registries,
        packer: LayerPacker,
        store: PackStore,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._registries = registries
        self._packer = packer
        self._store = store
        self._active: set[tuple[str, int]] = set()

    async def on_requested(self, event: PullRequested) -> None:
        attempt = (event.key, event.attempt)
        if attempt in self._active:
            log.info("pull_already_here")
            return
        self._active.add(attempt)
        try:
            reporter = ProgressReporter(
                self._bus,
                event,
                lease=self._settings.pull.lease,
                timeout=self._settings.bus.publish_timeout,
            )
            async with reporter.running():
                outcome = await self._outcome(event, reporter)
            await self._publish(outcome)
        finally:
            self._active.discard(attempt)

    async def on_refresh(self, event: RefreshRequested) -> None:
        try:
            reference = parse_reference(event.reference)
            client = await self._registries.client(reference.registry)
            digest = await client.head_digest(reference, Deadline.after(CHECK_SECONDS))
        except DrayError as exc:
            await self._publish(PullFailed.because(event, exc))
            return
        kind = ImageUnchanged if digest == event.known_digest else ImageChanged
        await self._publish(kind(**event.context, reference_digest=digest))

    async def _outcome(self, event: PullRequested, reporter: ProgressReporter) -> Event:
        deadline = Deadline.after(self._settings.converter.pull_timeout)
        try:
            recipe = await self._convert(event, reporter, deadline)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the user hears of it
            failure = _explained(exc, event)
            log.warning("pull_failed", code=failure.code, error=failure.message)
            return PullFailed.because(event, failure)
        return ImageConverted(**event.context, recipe=recipe)

    async def _convert(
        self, event: PullRequested, reporter: ProgressReporter, deadline: Deadline
    ) -> Recipe:
        reference = parse_reference(event.reference)
        client = await self._registries.client(reference.registry)
        image = await client.resolve(reference, parse_platform(event.platform), deadline)
        # A layer may occur twice in an image; it is fetched once.
        unique = {layer.digest: layer for layer in image.layers}
        parts = {digest: Part(total=layer.size) for digest, layer in unique.items()}
        reporter.expect(parts)
        slots = asyncio.Semaphore(self._settings.converter.parallel_layers)

        async def one(layer: ResolvedLayer) -> PackKey:
            async with slots:
                return await self._packer.pack(
                    LayerOrder(
                        client=client,
                        reference=reference,
                        layer=layer,
                        options=event.options,
                        part=parts[layer.digest],
                        deadline=deadline,
                    )
                )

        async with asyncio.TaskGroup() as group:
            tasks = {digest: group.create_task(one(layer)) for digest, layer in unique.items()}
        keys = [tasks[layer.digest].result() for layer in image.layers]
        reused = sum(part.cached for part in parts.values())
        log.info("layers_packed", layers=len(parts), reused=reused)
        reporter.enter(State.CONVERSION)
        recipe = await self._planned(keys, image, event.options, deadline)
        if len(recipe.model_dump_json()) > MAX_RECIPE_BYTES:
            raise ImageLimitError(
                f"the config of {reference} is too large to be passed on: keep its environment "
                "and labels short"
            )
        return recipe

    async def _planned(
        self,
        keys: list[PackKey],
        image: ResolvedImage,
        options: PackOptions,
        deadline: Deadline,
    ) -> Recipe:
        cancelled = threading.Event()
        plan = partial(_plan, self._store, keys, image, options, cancelled)
        return await in_thread(plan, cancelled, deadline, "making the image's tables")

    async def _publish(self, event: Event) -> None:
        await self._bus.publish(event, Deadline.after(self._settings.bus.publish_timeout))


def _plan(
    store: PackStore,
    keys: list[PackKey],
    image: ResolvedImage,
    options: PackOptions,
    cancelled: threading.Event,
) -> Recipe:
    indexes = read_indexes({key: store.pack_path(key) for key in keys}, cancelled=cancelled)
    recipe, tables = plan_image(
        [(key, indexes[key]) for key in keys],
        image_id=_image_id(image.config_digest, keys),
        options=options,
        config=image.config,
        source=image.source,
        codec=block_codec(options.compression, options.level),
        cancelled=cancelled,
    )
    store.put_tables(tables)
    return recipe


def _image_id(config: Digest, keys: list[PackKey]) -> ImageId:
    """Names the image's bytes: an image that is made otherwise never takes another's file."""
    return hashlib.sha256("\n".join((config, *keys)).encode()).hexdigest()


def _explained(error: Exception, event: PullRequested) -> DrayError:
    """What to tell the user; of several layers' errors the first that says something."""
    errors = list(_leaves(error))
    for known in errors:
        if isinstance(known, DrayError):
            return known
    for failed in errors:
        if isinstance(failed, OSError):
            return StoreUnavailableError(
                f"the pack store could not be used ({failed.strerror or failed}: "
                f"{failed.filename}); the operator must look at its space, quota and permissions"
            )
    # A fault of ours would come again at every redelivery: better the user hears now.
    log.error("pull_failed", exc_info=error)
    return DrayError(
        "the converter met an error of its own; tell the operator to look at its log "
        f"for pull {event.correlation_id}"
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
