"""`dray convert`: an image into one squashfs file, without services and without root.

Beside `cli.up` the one module that knows a service: it puts the converter's core together with a
cache in place of the pack store, and a file in place of a system.
"""

import asyncio
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from cli import show
from cli.convert_progress import Meter, Watching
from cli.errors import EXIT_INTERRUPTED, CliError, UsageError
from cli.http import Json
from services.converter.conversion import Conversion, ImageOrder, Watcher, named
from services.converter.layers import LayerPacker
from services.converter.packers.packers import Packers
from services.converter.packing.limits import Limits
from services.converter.registries import Registries
from services.converter.registry.platforms import Platform, parse_platform
from services.converter.registry.transport import open_session
from services.converter.sources.interface import SourceImage
from services.converter.sources.open import opened
from services.converter.sources.origin import parse_origin
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import (
    DrayError,
    InvalidInputError,
    InvalidReferenceError,
    MissingDependencyError,
)
from shared.files import publishing, remove_stale_partials_of
from shared.image.errors import PackCorruptError, StoreUnavailableError
from shared.image.making.materialise import materialise
from shared.image.recipe import PackOptions, Recipe
from shared.logging import configure_logging
from shared.progress import Part
from shared.settings.site import LogSettings, SystemSettings
from shared.states import State
from shared.store.space import StoreFullError
from shared.store.store import PackStore
from shared.store.suspects import SUSPICIOUS, check_store
from shared.threads import in_thread

CODECS: Final = ("isal", "zstandard")
MAX_REPAIRS: Final = 2

_MAX_DEAD_SHARE: Final[float] = SystemSettings.model_fields["max_dead_share"].default
_EXIT_CODES: Final = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: 128 + signal.SIGTERM}


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make of what, and where."""

    reference: str
    out: Path
    options: PackOptions
    max_dead_share: float | None
    platform: str
    cache: Path
    threads: int


def convert(wish: Wish, settings: Settings, *, json: bool, quiet: bool) -> int:
    """The exit code. OUT appears whole, durable and verified, or stays as it was."""
    missing = [name for name in CODECS if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"converting needs {', '.join(missing)}, not installed here: pip install 'dray[codecs]'"
        )
    configure_logging(LogSettings(format="console", level="error"))
    _check_out(wish.out)
    began = time.monotonic()
    notes = _Notes()
    meter = Meter(drawn=sys.stderr.isatty() and not (json or quiet))
    try:
        made = asyncio.run(_until_stopped(_Run(wish, settings, meter, notes)))
    except KeyboardInterrupt:  # before there was anything to stop
        made = signal.SIGINT
    if isinstance(made, signal.Signals):
        print("dray: interrupted; layers that were finished stay in the cache", file=sys.stderr)
        return _EXIT_CODES[made]
    seconds = time.monotonic() - began
    for note in () if quiet else notes.notes:
        print(f"dray: {show.plain(note)}", file=sys.stderr)
    if json:
        show.document(_document(wish, made, meter, seconds))
    elif not quiet:
        print(_summary(wish, made, meter, seconds))
    return 0


class _Notes:
    """An examiner that lets every image in, and keeps what its source says of it."""

    notes: tuple[str, ...] = ()

    def admit(self, image: SourceImage) -> None:
        self.notes = image.notes

    async def examine(self, image: SourceImage, watcher: Watcher, deadline: Deadline) -> None:
        pass


async def _until_stopped(run: "_Run") -> Recipe | signal.Signals:
    """The recipe of the finished image, or the signal that ended the work before."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run.make())
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    for number in _EXIT_CODES:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except (Exception, asyncio.CancelledError) as exc:
        if received:
            return received[0]
        if isinstance(exc, asyncio.CancelledError):
            raise
        # A fault of our own keeps its traceback.
        raise _said(named(exc), run.wish) or exc from None


@dataclass(frozen=True, slots=True)
class _Run:
    """One conversion, from what was typed to the file."""

    wish: Wish
    settings: Settings
    meter: Meter
    notes: "_Notes"

    async def make(self) -> Recipe:
        deadline = Deadline.after(self.settings.converter.pull_timeout)
        store = PackStore(self.wish.cache)
        await asyncio.to_thread(_prepare, self.wish, store)
        async with AsyncExitStack() as stack:
            watching = await stack.enter_async_context(self.meter.watching())
            conversion = await stack.enter_async_context(
                _conversion(self.wish, self.settings, store)
            )
            order = await stack.enter_async_context(self._ordered(deadline))
            for repairs in range(MAX_REPAIRS + 1):
                recipe = await conversion.recipe(order, watching, deadline)
                try:
                    await self._write(recipe, store, watching, deadline)
                except SUSPICIOUS:
                    if repairs == MAX_REPAIRS:
                        raise
                    await _set_damage_aside(recipe, store, deadline)
                else:
                    return recipe
        raise AssertionError

    @asynccontextmanager
    async def _ordered(self, deadline: Deadline) -> AsyncIterator[ImageOrder]:
        platform = _platform(self.wish.platform)
        origin = await asyncio.to_thread(parse_origin, self.wish.reference)
        limits = _limits(self.settings)
        async with open_session() as http:
            registries = Registries(http, self.settings.registries)
            async with opened(origin, registries, self.wish.cache, limits, deadline) as source:
                share = self.wish.max_dead_share
                yield ImageOrder(
                    source=source,
                    platform=platform,
                    options=self.wish.options,
                    max_dead_share=_MAX_DEAD_SHARE if share is None else share,
                    examiner=self.notes,
                )

    async def _write(
        self, recipe: Recipe, store: PackStore, watching: Watching, deadline: Deadline
    ) -> None:
        whole = Part(total=recipe.size)
        watching.enter(State.TRANSFER, whole)
        cancelled = threading.Event()
        write = partial(_publish, recipe, store, self.wish.out, whole, cancelled)
        await in_thread(write, cancelled, deadline, f"writing {self.wish.out}")


@asynccontextmanager
async def _conversion(
    wish: Wish, settings: Settings, store: PackStore
) -> AsyncIterator[Conversion]:
    async with Packers(wish.threads) as packers:
        packer = LayerPacker(store=store, packers=packers, limits=_limits(settings))
        yield Conversion(store, packer, settings.converter.parallel_layers)


def _platform(text: str) -> Platform:
    try:
        return parse_platform(text)
    except InvalidInputError as exc:
        raise UsageError(f"--platform: {exc.message}") from exc


def _said(error: DrayError | None, wish: Wish) -> DrayError | None:
    """In the words of one who has no store and no operator, but a cache and a command line."""
    match error:
        case InvalidReferenceError():
            return UsageError(error.message)
        case StoreFullError():
            return CliError(
                f"the cache {wish.cache} is full: make room there, or choose another with --cache"
            )
        case StoreUnavailableError():
            return CliError(
                f"the cache {wish.cache}: {error.message.partition(';')[0]}; look at its space, "
                "quota and permissions, or choose another with --cache"
            )
    return error


def _limits(settings: Settings) -> Limits:
    return Limits(max_bytes=settings.converter.max_layer_bytes)


def _check_out(out: Path) -> None:
    """Say now what would otherwise be found out after the last byte."""
    try:
        _check_place(out)
    except OSError as exc:
        raise CliError(f"{out} cannot be looked at: {exc.strerror}; name another place") from exc


def _check_place(out: Path) -> None:
    if str(out) == "-":
        raise UsageError("a squashfs cannot be written to a pipe: name the file to make")
    if out.is_dir():
        raise UsageError(f"{out} is a directory: name the file to make")
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is no regular file, and is left alone: name another")
    if not out.parent.is_dir():
        raise CliError(f"there is no directory {out.parent}: make it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise CliError(f"you may not make files in {out.parent.absolute()}: name another place")


def _prepare(wish: Wish, store: PackStore) -> None:
    """Have a cache, and remove what runs that were killed left in it and beside OUT. Blocks."""
    try:
        store.keep_to_itself()
        store.remove_stale()
    except OSError as exc:
        raise CliError(
            f"the cache {wish.cache} cannot be used: {exc.strerror}; choose another with --cache"
        ) from exc
    remove_stale_partials_of(wish.out)


def _publish(
    recipe: Recipe, store: PackStore, out: Path, whole: Part, cancelled: threading.Event
) -> None:
    try:
        with publishing(out) as file:
            materialise(
                recipe,
                store,
                file,
                on_progress=lambda done: setattr(whole, "done", done),
                cancelled=cancelled,
            )
    except OSError as exc:
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        hint = f"it needs {show.size(recipe.size)} there" if full else "name another place"
        raise CliError(f"{out} cannot be written: {exc.strerror}; {hint}") from exc


async def _set_damage_aside(recipe: Recipe, store: PackStore, deadline: Deadline) -> None:
    """Take damaged packs out of the cache, so that the next attempt makes them anew."""
    cancelled = threading.Event()
    look = partial(check_store, recipe, store, cancelled)
    with suppress(PackCorruptError):
        await in_thread(look, cancelled, deadline, "looking for damaged packs")


def _summary(wish: Wish, recipe: Recipe, meter: Meter, seconds: float) -> str:
    layers = "1 layer" if meter.layers == 1 else f"{meter.layers} layers"
    return (
        f"{show.plain(wish.out)}  id {recipe.image_id[: show.SHORT_ID]}, {show.size(recipe.size)}, "
        f"{recipe.inodes:,} inodes, {layers} ({meter.reused} re-used), {show.duration(seconds)}"
    )


def _document(wish: Wish, recipe: Recipe, meter: Meter, seconds: float) -> Json:
    return {
        "path": str(wish.out.absolute()),
        "image_id": recipe.image_id,
        "content_digest": recipe.content_digest,
        "size": recipe.size,
        "inodes": recipe.inodes,
        "compression": recipe.compression,
        "block_size": recipe.block_size,
        "layers": meter.layers,
        "layers_reused": meter.reused,
        "seconds": round(seconds, 3),
        "source": recipe.source.model_dump(mode="json"),
        "config": recipe.config.model_dump(mode="json"),
    }
