"""A full file system under the pack store: said in numbers, nothing left, and usable again."""

import hashlib
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from services.converter.layers import LayerOrder, LayerPacker
from services.converter.packers.packers import Packers
from services.converter.packing import Limits
from services.converter.sources.interface import SourceLayer
from shared.deadline import Deadline
from shared.image.recipe import PackOptions
from shared.progress import Part
from shared.store.space import StoreFullError
from shared.store.store import PackStore
from tests.support.noise import noise
from tests.support.packing import tar_of
from tests.support.store import put_pack, remember


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PackStore]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a small file system")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], check=True)
    yield PackStore(place)
    subprocess.run(["umount", place], check=True)


def partials(store: PackStore) -> list[Path]:
    return list(store.root.rglob("*.partial"))


async def build(store: PackStore) -> None:
    tar = tar_of(("data", noise(4 << 20)))
    digest = f"sha256:{hashlib.sha256(tar).hexdigest()}"

    async def blob(_: Deadline) -> AsyncGenerator[bytes, None]:
        yield tar

    layer = SourceLayer(diff_id=digest, blob=None, size=len(tar), open=blob)
    order = LayerOrder(layer, PackOptions(), Part(total=len(tar)), Deadline.after(20))
    async with Packers(1) as packers:
        await LayerPacker(store, packers, Limits()).pack(order)


@pytest.mark.root
async def test_a_pack_that_does_not_fit_says_how_much_would(store: PackStore) -> None:
    """Told by the process that packs, said by the one that knows the store."""
    with pytest.raises(StoreFullError) as caught:
        await build(store)
    assert caught.value.retryable
    assert re.search(r"No space left on device.* 2 of 2 MiB and [\d,]+ files", caught.value.message)
    assert partials(store) == []
    assert not list((store.root / "locks").iterdir())
    key = put_pack(store, "small")
    assert store.use_pack(key), "smaller ones still fit"


@pytest.mark.root
def test_tables_and_recipes_that_do_not_fit_leave_nothing(store: PackStore) -> None:
    with pytest.raises(StoreFullError):
        store.put_tables(noise(4 << 20))
    assert partials(store) == []
    key = put_pack(store, "small")
    fill(store.root / "filler")
    with pytest.raises(StoreFullError):
        remember(store, "image", [key])
    assert partials(store) == []


def fill(path: Path) -> None:
    """Up to the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
