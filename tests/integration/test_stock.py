"""Distributors compare image directories with the catalog, over real ones of both."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.distributor.app import build
from services.distributor.inventory import STATE, ours
from services.distributor.marks import Marks
from services.distributor.upkeep import LOCK
from services.gateway.inventory import Inventory
from shared import files
from shared.bus.embedded import EmbeddedBus
from shared.bus.handling import Handlers
from shared.bus.interface import WorkQueue
from shared.bus.topology import GATEWAY_EVENTS, distributor_queue
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import InventoryExpected, InventoryRequested
from shared.files import PARTIAL
from shared.models import utcnow
from shared.states import State
from shared.store.locks import release, try_lock
from tests.support.bus import Recorder
from tests.support.conditions import eventually
from tests.support.inventory_site import Directory, answering, inventory_bus, serve
from tests.support.lifecycle import SYSTEM, image, store, stored


@pytest.fixture
async def bus() -> AsyncIterator[EmbeddedBus]:
    async with inventory_bus() as bus:
        yield bus


@pytest.fixture
async def gateway(catalog: Catalog, bus: EmbeddedBus) -> AsyncIterator[Inventory]:
    async with answering(catalog, bus) as gateway:
        yield gateway


@pytest.fixture
async def directory(
    tmp_path: Path, bus: EmbeddedBus, gateway: Inventory
) -> AsyncIterator[Directory]:
    directory = Directory(tmp_path, bus)
    await serve(gateway, bus)
    await directory.serve()
    yield directory
    await directory.mender.stop()


async def test_a_record_whose_file_is_gone_or_cut_short_says_so(
    directory: Directory, catalog: Catalog
) -> None:
    """No packs are here, so that nothing can be made again."""
    old = utcnow() - timedelta(hours=1)

    def standing(name: str, letter: str) -> ImageRecord:
        record = image(name, letter)
        assert record.current is not None
        return record.but(current=record.current.model_copy(update={"ready_at": old}))

    await store(catalog, *(standing(name, name) for name in "abc"))
    directory.put("a")
    directory.put("b", size=100)
    await directory.upkeep.take_stock(SYSTEM)

    async def others_failed() -> bool:
        records = [await stored(catalog, name) for name in "abc"]
        return [each.state for each in records] == [State.READY, State.FAILURE, State.FAILURE]

    await eventually(others_failed, within=10)


async def test_an_empty_mount_point_is_no_proof_of_a_loss(
    directory: Directory, catalog: Catalog
) -> None:
    record = image()
    assert record.current is not None
    old = record.current.model_copy(update={"ready_at": utcnow() - timedelta(hours=1)})
    await store(catalog, record.but(current=old))
    await directory.upkeep.take_stock(SYSTEM)
    expected = InventoryExpected(correlation_id="x", system=SYSTEM, images=())
    await directory.upkeep.on_expected(expected)
    await asyncio.sleep(0.2)
    assert (await stored(catalog)).state is State.READY
    # Once something of ours was seen here, what is missing is missing.
    directory.put("b")
    await directory.upkeep.take_stock(SYSTEM)
    await eventually(lambda: _state_is(catalog, State.FAILURE), within=10)


async def _state_is(catalog: Catalog, state: State) -> bool:
    return (await stored(catalog)).state is state


async def test_what_the_catalog_does_not_know_is_marked_after_its_grace(
    tmp_path: Path, bus: EmbeddedBus, gateway: Inventory, catalog: Catalog
) -> None:
    directory = Directory(tmp_path, bus, unknown_grace=30.0)
    await serve(gateway, bus)
    await directory.serve()
    await store(catalog, image("a", "a"))
    directory.put("a")
    directory.put("b")
    directory.put("c", kinds="meta squashfs")  # not ours: another program's
    directory.put("d", age=-60)  # just placed
    directory.put("e", kinds="json meta")  # what a placement left that was cut short
    await directory.upkeep.take_stock(SYSTEM)
    noted = directory.path / ".removal"
    await eventually(lambda: len(list(noted.glob("*.unknown"))) == 2, within=5)
    assert {path.name[0] for path in noted.glob("*.unknown")} == {"b", "e"}
    assert not list(noted.glob("*.mark"))
    for path in noted.glob("*.unknown"):
        os.utime(path, (time.time() - 31, time.time() - 31))
    await store(catalog, image("e", "e"))  # known by now
    os.utime(directory.path / STATE, (0, 0))  # long ago
    await directory.upkeep.take_stock(SYSTEM)
    await eventually(lambda: directory.mark("b") is not None, within=5)
    mark = directory.mark("b")
    assert [path.name[0] for path in noted.glob("*.mark")] == ["b"]
    assert (directory.path / f"{'b' * 64}.squashfs").exists(), "it is only asked about"
    os.utime(directory.path / STATE, (0, 0))
    await directory.upkeep.take_stock(SYSTEM)
    await asyncio.sleep(0.2)
    assert directory.mark("b") == mark, "what is being decided is left alone"
    Marks(directory.path).renew("b" * 64)  # it is placed again
    assert not (noted / f"{'b' * 64}.unknown").exists()
    await directory.mender.stop()


async def test_stock_is_taken_by_one_at_a_time_and_not_too_often(
    tmp_path: Path, bus: EmbeddedBus
) -> None:
    directory = Directory(tmp_path, bus)
    directory.put("a")
    heard = Recorder()
    await bus.consume(GATEWAY_EVENTS, heard, slots=1)
    lock = try_lock(directory.path / LOCK, create=True)
    assert lock is not None
    await directory.upkeep.take_stock(SYSTEM)
    release(lock, directory.path / LOCK)
    await directory.upkeep.take_stock(SYSTEM)  # at its start, in any case
    await directory.upkeep.take_stock(SYSTEM)
    end = InventoryRequested(correlation_id="end", system=SYSTEM)
    await bus.publish(end, Deadline.after(5))
    await eventually(lambda: end.id in heard.ids, within=5)
    kinds = [event.type for event in heard.events]
    assert kinds == ["inventory.found", "inventory.requested", "inventory.requested"]
    os.utime(directory.path / STATE, (0, 0))
    await directory.upkeep.take_stock(SYSTEM)
    await eventually(lambda: len(heard.events) > len(kinds), within=5)


async def test_leftovers_of_the_dead_go_while_services_live(
    tmp_path: Path, bus: EmbeddedBus
) -> None:
    directory = Directory(tmp_path, bus)
    dead = directory.path / f".{'a' * 64}.squashfs.{'0' * 20}{PARTIAL}"
    dead.write_bytes(b"half")
    await directory.upkeep.take_stock(SYSTEM)
    assert dead.exists(), "of another machine, which may be writing"
    os.utime(dead, (0, 0))
    os.utime(directory.path, (0, 0))
    directory.upkeep._looked.clear()
    await directory.upkeep.take_stock(SYSTEM)
    assert not dead.exists()


async def test_a_distributor_makes_room_of_its_own_leftovers_before_it_takes_work(
    tmp_path: Path,
) -> None:
    """Else the placement that died with it would find the disk full of itself."""
    directory = tmp_path / "images"
    directory.mkdir()
    own = directory / f".image.{files._machine()}{'0' * 12}{PARTIAL}"
    own.write_bytes(b"half")
    settings = Settings.model_validate(
        {"data_dir": str(tmp_path), "systems": {SYSTEM: {"image_dir": str(directory)}}}
    )
    bus = EmbeddedBus([GATEWAY_EVENTS, distributor_queue(SYSTEM)])
    distributor = build(settings, bus, serve_health=False)
    await bus.open(Deadline.after(5))
    consume, seen = distributor.consume, []

    async def consuming(queue: WorkQueue, handlers: Handlers, slots: int) -> None:
        seen.append(own.exists())
        await consume(queue, handlers, slots)

    distributor.consume = consuming  # type: ignore[method-assign]
    await distributor.start(Deadline.after(10))
    await distributor.stop(Deadline.after(10))
    assert seen == [False]


def test_a_directory_is_read_by_names_and_ages(tmp_path: Path) -> None:
    for name in ("a" * 64, "b" * 63, "G" * 64):
        (tmp_path / f"{name}.json").touch()
    (tmp_path / f".{'c' * 64}.json").touch()
    assert ours(tmp_path, -60) == ["a" * 64]
    assert ours(tmp_path, 60) == []
