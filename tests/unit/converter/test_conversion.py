"""The layers of an image on their way into the store: each once, and every promise checked."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from services.converter.conversion import Conversion, ImageOrder, Watcher, named
from services.converter.layers import LayerPacker
from services.converter.packers import work
from services.converter.packers.packers import Packers
from services.converter.packing.limits import Limits
from services.converter.registry.platforms import Platform
from services.converter.sources.bare import bare_image
from services.converter.sources.interface import Source, SourceImage, SourceLayer
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, NotAdmittedError
from shared.image.recipe import ImageConfig, PackOptions, SourceDigests
from shared.progress import Part
from shared.states import State
from shared.store.store import PackStore
from tests.support.conditions import eventually
from tests.support.packers import children
from tests.support.packing import tar_of

TAR = tar_of(("f", b"content"))
REAL = f"sha256:{hashlib.sha256(TAR).hexdigest()}"
LIE = "sha256:" + "1" * 64


class Unwatched:
    def expect(self, parts: dict[str, Part]) -> None:
        pass

    def enter(self, stage: State, whole: Part | None = None) -> None:
        pass


class Given:
    """A source of one blob, whatever its layers are said to be; counts how often it is read."""

    def __init__(self, *diff_ids: str) -> None:
        self.diff_ids = diff_ids
        self.read = 0

    async def resolve(self, _: Platform, __: Deadline) -> SourceImage:
        layer = partial(SourceLayer, blob=REAL, size=len(TAR), open=self.blob)
        digests = SourceDigests(
            reference=LIE, manifest=LIE, config=LIE, layers=(REAL,) * len(self.diff_ids)
        )
        layers = tuple(layer(diff_id=diff_id) for diff_id in self.diff_ids)
        return SourceImage(called="it", config=ImageConfig(), digests=digests, layers=layers)

    async def blob(self, _: Deadline) -> AsyncGenerator[bytes, None]:
        self.read += 1
        yield TAR


@pytest.fixture
async def packers() -> AsyncGenerator[Packers, None]:
    async with Packers(1) as packers:
        yield packers


@pytest.fixture
def conversion(packers: Packers, tmp_path: Path) -> Conversion:
    return Conversion(store := PackStore(tmp_path), LayerPacker(store, packers, Limits()), 2)


def order_of(source: Source, level: int = 3) -> ImageOrder:
    return ImageOrder(source, Platform("linux", "amd64"), PackOptions(level=level), 0.15)


async def test_a_layer_that_occurs_twice_is_read_once(conversion: Conversion) -> None:
    source = Given(REAL, REAL)
    recipe = await conversion.recipe(order_of(source), Unwatched(), Deadline.after(20))
    assert source.read == 1
    assert len(recipe.layers) == 2
    assert len(recipe.segments) == 1


class Stamped:
    """A source of a layer that nobody promised a digest of, and that looks other each time."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.looks = 0

    async def resolve(self, _: Platform, __: Deadline) -> SourceImage:
        self.looks += 1
        layer = SourceLayer(
            diff_id=None,
            blob=None,
            size=len(self.content),
            open=self.tar,
            stamp=hashlib.sha256(self.content + bytes([self.looks])).hexdigest(),
            literal=True,
        )
        return bare_image("it", [layer])

    async def tar(self, _: Deadline) -> AsyncGenerator[bytes, None]:
        yield self.content


async def test_what_is_the_same_is_one_image_however_it_was_found(conversion: Conversion) -> None:
    deadline = Deadline.after(20)
    source, other = Stamped(TAR), Stamped(tar_of(("f", b"others")))
    recipes = [
        await conversion.recipe(order_of(each), Unwatched(), deadline)
        for each in (source, source, other)
    ]
    first, second, different = recipes
    assert second == first
    assert first.source.layers == (REAL,)
    assert different.source.manifest != first.source.manifest
    assert different.image_id != first.image_id


class Denying:
    """An examiner that lets one layer in by no means."""

    def admit(self, image: SourceImage) -> None:
        if REAL in image.digests.layers:
            raise NotAdmittedError(image.called)

    async def examine(self, image: SourceImage, _: Watcher, __: Deadline) -> None:
        raise AssertionError


async def test_what_is_denied_stays_out_where_only_its_content_tells(
    conversion: Conversion,
) -> None:
    order = replace(order_of(Stamped(TAR)), examiner=Denying())
    with pytest.raises(NotAdmittedError):
        await conversion.recipe(order, Unwatched(), Deadline.after(20))


@pytest.mark.parametrize("diff_ids", [(LIE, REAL), (REAL, LIE)])
async def test_one_blob_cannot_be_two_layers(
    conversion: Conversion, diff_ids: tuple[str, str]
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await conversion.recipe(order_of(Given(*diff_ids)), Unwatched(), Deadline.after(20))
    told = named(caught.value)
    assert told is not None
    assert told.code == "layer_mismatch"


async def test_a_store_that_hangs_ends_the_pull_and_not_only_the_packing(
    conversion: Conversion, packers: Packers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the pipe is full, and nobody takes anything out of it."""
    hanging: set[int] = set()

    async def endless(_: Deadline) -> AsyncGenerator[bytes, None]:
        for packer in await eventually(lambda: children(packers), within=4):
            os.kill(packer, signal.SIGSTOP)
            hanging.add(packer)
        while True:
            yield bytes(1 << 20)

    # The nursery is there by then: what it takes to start is no part of the deadline.
    await conversion.recipe(order_of(Given(REAL)), Unwatched(), Deadline.after(20))
    await eventually(lambda: not children(packers), within=10)
    monkeypatch.setattr(work, "LAST_WORD_SECONDS", 0.1)
    source = Given(REAL)
    monkeypatch.setattr(source, "blob", endless)
    try:
        async with asyncio.timeout(20):
            with pytest.raises(ExceptionGroup) as caught:
                await conversion.recipe(order_of(source, level=4), Unwatched(), Deadline.after(5))
    finally:
        for packer in hanging:
            os.kill(packer, signal.SIGKILL)
    assert hanging
    told = named(caught.value)
    assert isinstance(told, DeadlineExceededError)
    assert "packing layer" in told.message


async def test_giving_up_while_a_layer_is_waited_for_leaves_nothing(
    conversion: Conversion,
    packers: Packers,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    async def silent(_: Deadline) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(60)
        yield b""

    source = Given(REAL)
    monkeypatch.setattr(source, "blob", silent)
    pull = asyncio.create_task(conversion.recipe(order_of(source), Unwatched(), Deadline.after(20)))
    await eventually(lambda: list(tmp_path.rglob("*.partial")), within=10)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert children(packers) == set()
    assert not list(tmp_path.rglob("*.partial"))
    assert capfd.readouterr().err == "", "no thread of the packer crashed"
