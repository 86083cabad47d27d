"""What is said to Prometheus of packs: made, found, awaited, proved or failed, and their bytes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from services.converter.layers import LayerPacker
from services.converter.origins import Origins
from services.converter.packers.packers import Packers
from services.converter.packing.errors import LayerMismatchError
from services.converter.packing.limits import Limits
from shared.deadline import Deadline
from shared.store.store import PackStore
from tests.support.conditions import eventually
from tests.support.metrics import moved
from tests.unit.converter.test_origins import LAYER, OTHER, Pull


@pytest.fixture
async def packer(tmp_path: Path) -> AsyncIterator[LayerPacker]:
    store = PackStore(tmp_path)
    async with Packers(2) as packers:
        yield LayerPacker(store, packers, Limits(), Origins(store))


async def test_a_layer_is_made_once_found_later_and_proved_where_it_must_be(
    packer: LayerPacker,
) -> None:
    with (
        moved("dray_packs_total", {"outcome": "made"}),
        moved("dray_pack_seconds_count"),
        moved("dray_pack_bytes_total", {"what": "downloaded"}, by=len(LAYER)),
        moved("dray_pack_bytes_total", {"what": "inflated"}, by=len(LAYER)),
        moved("dray_pack_bytes_total", {"what": "packed"}, by=None),
        moved("dray_pack_saved_bytes_total", by=0),
    ):
        await Pull("site").run(packer)
    with (
        moved("dray_packs_total", {"outcome": "found"}),
        moved("dray_pack_bytes_total", {"what": "downloaded"}, by=0),
        moved("dray_pack_saved_bytes_total", by=len(LAYER)),
    ):
        await Pull("site").run(packer)
    with (
        moved("dray_packs_total", {"outcome": "proved"}),
        moved("dray_pack_bytes_total", {"what": "downloaded"}, by=len(LAYER)),
        moved("dray_pack_saved_bytes_total", by=0),
    ):
        await Pull("elsewhere").run(packer)


async def test_what_is_not_what_it_should_be_has_failed(packer: LayerPacker) -> None:
    with (
        moved("dray_packs_total", {"outcome": "failed"}),
        moved("dray_pack_seconds_count", by=0),
        pytest.raises(LayerMismatchError),
    ):
        await Pull("site", blob=OTHER).run(packer)


class Watched(PackStore):
    """Counts who wants to make a pack."""

    wanted = 0

    def lock_path(self, name: str) -> Path:
        self.wanted += 1
        return super().lock_path(name)


class Slow(Pull):
    """Another pull comes while this one reads."""

    def meet(self, packer: LayerPacker, store: Watched) -> None:
        self._packer, self._store = packer, store

    async def _open(self, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        self.second = asyncio.create_task(Pull("site").run(self._packer))
        await eventually(lambda: self._store.wanted == 2, within=10)
        async for chunk in super()._open(deadline):
            yield chunk


async def test_whoever_waits_for_another_has_awaited_it(tmp_path: Path) -> None:
    store = Watched(tmp_path)
    first = Slow("site")
    with (
        moved("dray_packs_total", {"outcome": "made"}),
        moved("dray_packs_total", {"outcome": "awaited"}),
        moved("dray_packs_total", {"outcome": "found"}, by=0),
    ):
        async with Packers(2) as packers:
            packer = LayerPacker(store, packers, Limits(), Origins(store))
            first.meet(packer, store)
            await first.run(packer)
            await first.second
