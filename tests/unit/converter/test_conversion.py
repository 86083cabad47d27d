"""The layers of an image on their way into the store: each once, and every promise checked."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from services.converter import layers as converter_layers
from services.converter.conversion import Conversion, ImageOrder, named
from services.converter.layers import LayerPacker
from services.converter.packing.compressors import Compressors
from services.converter.packing.feed import Feed
from services.converter.packing.limits import Limits
from services.converter.registry.platforms import Platform
from services.converter.sources.interface import SourceImage, SourceLayer
from shared import threads
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from shared.image.recipe import ImageConfig, PackOptions, SourceDigests
from shared.progress import Part
from shared.states import State
from shared.store.store import PackStore
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
def conversion(tmp_path: Path) -> Iterator[Conversion]:
    store = PackStore(tmp_path)
    with ThreadPoolExecutor(2) as executor, Compressors(1) as compressors:
        yield Conversion(store, LayerPacker(store, executor, compressors, Limits()), 2)


def order_of(source: Given) -> ImageOrder:
    return ImageOrder(source, Platform("linux", "amd64"), PackOptions(), 0.15)


async def test_a_layer_that_occurs_twice_is_read_once(conversion: Conversion) -> None:
    source = Given(REAL, REAL)
    recipe = await conversion.recipe(order_of(source), Unwatched(), Deadline.after(20))
    assert source.read == 1
    assert len(recipe.layers) == 2
    assert len(recipe.segments) == 1


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
    conversion: Conversion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then the feed is full, and nobody takes anything out of it."""
    released = threading.Event()
    monkeypatch.setattr(converter_layers, "pack_layer", lambda *_, **__: released.wait(60))
    monkeypatch.setattr(threads, "LAST_WORD_SECONDS", 0.1)
    source = Given(REAL)
    monkeypatch.setattr(source, "blob", endless)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(ExceptionGroup) as caught:
                await conversion.recipe(order_of(source), Unwatched(), Deadline.after(0.3))
    finally:
        released.set()
    told = named(caught.value)
    assert isinstance(told, DeadlineExceededError)
    assert "packing layer" in told.message


async def test_giving_up_while_a_layer_is_waited_for_is_no_crash_of_a_thread(
    conversion: Conversion, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", crashes.append)
    reading, read = threading.Event(), Feed.read

    def told(feed: Feed, size: int) -> bytes:
        reading.set()
        return read(feed, size)

    async def silent(_: Deadline) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(60)
        yield b""

    source = Given(REAL)
    monkeypatch.setattr(source, "blob", silent)
    monkeypatch.setattr(Feed, "read", told)
    work = asyncio.create_task(conversion.recipe(order_of(source), Unwatched(), Deadline.after(20)))
    assert await asyncio.to_thread(reading.wait, 20)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert crashes == []


async def endless(_: Deadline) -> AsyncGenerator[bytes, None]:
    while True:
        yield bytes(1 << 20)
