"""Planning an image within a conversion: what the deadline ends has really ended."""

import asyncio
import threading
from pathlib import Path
from typing import cast

import pytest

from services.converter.conversion import Conversion, ImageOrder
from services.converter.layers import LayerPacker, PackedLayer
from services.converter.registry.platforms import Platform
from services.converter.sources.interface import Source, SourceImage
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from shared.image.merging.live import Layer
from shared.image.merging.tree import Tree
from shared.image.recipe import ImageConfig, PackOptions, SourceDigests
from shared.store.store import PackStore
from tests.support.packing import add_pack, tar_of

DIGEST = "sha256:" + "1" * 64
ORDER = ImageOrder(
    source=cast("Source", None),
    platform=Platform("linux", "amd64"),
    options=PackOptions(),
    max_dead_share=0.15,
)


def conversion(store: PackStore) -> Conversion:
    return Conversion(store, cast("LayerPacker", None), 1)


def image(layers: int) -> SourceImage:
    digests = SourceDigests(
        reference=DIGEST, manifest=DIGEST, config=DIGEST, layers=(DIGEST,) * layers
    )
    return SourceImage(called="h.io/a:1", config=ImageConfig(), digests=digests, layers=())


async def test_an_image_is_planned_from_each_pack_once(tmp_path: Path) -> None:
    store = PackStore(tmp_path)
    key = add_pack(store, tar_of(("f", b"content")), PackOptions())
    layer = PackedLayer(key, DIGEST)
    recipe = await conversion(store)._planned([layer, layer], image(2), ORDER, Deadline.after(20))
    assert [segment.pack for segment in recipe.segments] == [key]
    assert store.tables_path(recipe.tables.sha256).is_file()


async def test_after_the_deadline_no_thread_goes_on_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PackStore(tmp_path)
    key = add_pack(store, tar_of(("f", b"content")), PackOptions())
    layers = [PackedLayer(key, DIGEST)]
    begun, ended = threading.Event(), threading.Event()
    real = Tree.apply

    def slow(tree: Tree, layer: Layer) -> None:
        begun.set()
        try:
            # As long as there are rows; only being cancelled ends it.
            while not ended.is_set():
                tree._budget.check()
            real(tree, layer)
        finally:
            ended.set()

    monkeypatch.setattr(Tree, "apply", slow)
    try:
        with pytest.raises(DeadlineExceededError, match="image's tables"):
            await asyncio.wait_for(
                conversion(store)._planned(layers, image(1), ORDER, Deadline.after(0.2)), 20
            )
        assert begun.is_set()
        assert ended.is_set()
        assert not (tmp_path / "tables").exists()
    finally:
        ended.set()
