"""Planning an image within a pull: what the deadline ends has really ended."""

import asyncio
import threading
from pathlib import Path
from typing import cast

import pytest

from services.converter.layers import LayerPacker
from services.converter.pulls import Pulls
from services.converter.registries import Registries
from services.converter.registry.client import ResolvedImage
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from shared.image.recipe import ImageConfig, PackOptions
from shared.image.store import PackStore
from shared.image.tree import Layer, Tree
from shared.reference import parse_reference
from tests.support.packing import add_pack, tar_of

DIGEST = "sha256:" + "1" * 64


def pulls(store: PackStore) -> Pulls:
    unused = None
    return Pulls(
        cast("Settings", unused),
        cast("Bus", unused),
        cast("Registries", unused),
        cast("LayerPacker", unused),
        store,
    )


IMAGE = ResolvedImage(
    reference=parse_reference("h.io/a:1"),
    reference_digest=DIGEST,
    manifest_digest=DIGEST,
    config_digest=DIGEST,
    config=ImageConfig(),
    layers=(),
)


async def test_an_image_is_planned_from_each_pack_once(tmp_path: Path) -> None:
    store = PackStore(tmp_path)
    key = add_pack(store, tar_of(("f", b"content")), PackOptions())
    recipe = await pulls(store)._planned([key, key], IMAGE, PackOptions(), Deadline.after(20))
    assert [segment.pack for segment in recipe.segments] == [key]
    assert store.tables_path(recipe.tables.sha256).is_file()


async def test_after_the_deadline_no_thread_goes_on_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PackStore(tmp_path)
    key = add_pack(store, tar_of(("f", b"content")), PackOptions())
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
                pulls(store)._planned([key], IMAGE, PackOptions(), Deadline.after(0.2)), 20
            )
        assert begun.is_set()
        assert ended.is_set()
        assert not (tmp_path / "tables").exists()
    finally:
        ended.set()
