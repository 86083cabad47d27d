"""Packs are used again only for those who could have fetched the layer themselves."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.converter.layers import LayerOrder, LayerPacker
from services.converter.origins import Origins
from services.converter.packers.packers import Packers
from services.converter.packing.errors import LayerMismatchError
from services.converter.packing.limits import Limits
from services.converter.sources.interface import Proof, SourceLayer
from shared.deadline import Deadline
from shared.image.packs.pack import pack_key
from shared.image.recipe import PackOptions
from shared.progress import Part
from shared.store.origins import origin_path, read_origin
from shared.store.store import PackStore
from tests.support.packing import tar_of

OPTIONS = PackOptions()
LAYER = tar_of(("secret", b"alice's"))
OTHER = tar_of(("f", b"bob's"))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Pull:
    """One user's pull of one layer from one registry; counts what the registry was asked."""

    registry: str
    public: bool = False
    confirms: bool = True
    blob: bytes = LAYER
    diff_id: str = digest(LAYER)
    asked: int = 0
    read: int = 0
    part: Part = field(default_factory=lambda: Part(total=len(LAYER)))

    async def run(self, packer: LayerPacker) -> str:
        proof = Proof(self.registry, self.public, self._confirm)
        layer = SourceLayer(self.diff_id, digest(self.blob), len(self.blob), self._open, proof)
        order = LayerOrder(layer, OPTIONS, self.part, Deadline.after(30))
        return (await packer.pack(order)).key

    async def _confirm(self, _: Deadline) -> bool:
        self.asked += 1
        return self.confirms

    async def _open(self, _: Deadline) -> AsyncGenerator[bytes, None]:
        self.read += 1
        yield self.blob


@pytest.fixture
async def packer(tmp_path: Path) -> AsyncIterator[LayerPacker]:
    store = PackStore(tmp_path)
    async with Packers(1) as packers:
        yield LayerPacker(store, packers, Limits(), Origins(store))


def inode(packer: LayerPacker) -> int:
    return packer.store.pack_path(pack_key(digest(LAYER), OPTIONS)).stat().st_ino


async def test_what_everybody_may_have_is_read_once_and_nobody_is_asked(
    packer: LayerPacker,
) -> None:
    first = Pull("hub", public=True)
    await first.run(packer)
    for later in (Pull("hub", public=True), Pull("hub"), Pull("elsewhere"), Pull("x", public=True)):
        await later.run(packer)
        assert (later.asked, later.read, later.part.cached) == (0, 0, True)


async def test_another_user_of_the_same_registry_shares_when_it_says_so(
    packer: LayerPacker,
) -> None:
    await Pull("site").run(packer)
    pack = inode(packer)
    second = Pull("site")
    await second.run(packer)
    assert (second.asked, second.read) == (1, 0)
    refused = Pull("site", confirms=False)
    await refused.run(packer)
    assert (refused.asked, refused.read) == (1, 1)
    assert inode(packer) == pack


@pytest.mark.parametrize("public", [True, False])
async def test_elsewhere_the_layer_has_to_be_there_and_to_be_it(
    packer: LayerPacker, public: bool
) -> None:
    key = await Pull("site").run(packer)
    pack, known = inode(packer), read_origin(packer.store.root, key)
    lie = Pull("evil", public=public, blob=OTHER)
    with pytest.raises(LayerMismatchError):
        await lie.run(packer)
    assert (lie.asked, lie.read) == (0, 1)
    # Also within the registry that gave it, under a blob of one's own that it confirms.
    with pytest.raises(LayerMismatchError):
        await Pull("site", blob=OTHER).run(packer)
    assert read_origin(packer.store.root, key) == known
    honest = Pull("evil", public=public)
    await honest.run(packer)
    assert (honest.read, inode(packer)) == (1, pack)
    again = Pull("evil", public=public)
    await again.run(packer)
    assert (again.read, again.asked) == (0, 0 if public else 1)
    assert not list((packer.store.root / "proofs").iterdir())


async def test_a_pack_of_unknown_origin_is_proved_once(packer: LayerPacker) -> None:
    key = await Pull("hub", public=True).run(packer)
    origin_path(packer.store.root, key).write_bytes(b"damaged")
    second, third = Pull("hub", public=True), Pull("hub", public=True)
    await second.run(packer)
    await third.run(packer)
    assert (second.read, third.read) == (1, 0)
