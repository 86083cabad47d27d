"""Image directories and the catalog are compared, over real catalogs and real directories."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from services.distributor.app import build
from services.distributor.inventory import STATE, ours
from services.distributor.marks import Marks
from services.distributor.mending import Mender
from services.distributor.placement import Terms
from services.distributor.upkeep import LOCK, Upkeep
from services.gateway import inventory
from services.gateway.feed import ChangeFeed
from services.gateway.inventory import Inventory
from shared import files
from shared.bus.embedded import EmbeddedBus
from shared.bus.handling import Handlers, dispatch
from shared.bus.interface import WorkQueue
from shared.bus.topology import GATEWAY_EVENTS, distributor_queue
from shared.catalog.interface import Catalog
from shared.catalog.records import Failure, ImageRecord
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import (
    ImageExpireRequested,
    ImageLost,
    InventoryExpected,
    InventoryFound,
    InventoryRequested,
    InventoryUnknown,
    PullRequested,
)
from shared.files import PARTIAL
from shared.models import utcnow
from shared.settings.workers import DistributorSettings
from shared.states import State
from shared.store.locks import release, try_lock
from shared.store.store import PackStore
from tests.support.bus import Recorder
from tests.support.catalogs import later
from tests.support.conditions import eventually
from tests.support.lifecycle import SYSTEM, image, store, stored
from tests.support.recipes import small_recipe
from tests.support.transitions import ASK, MACHINE

OTHER = "other"


@pytest.fixture
async def bus() -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus([GATEWAY_EVENTS, distributor_queue(SYSTEM)])
    await bus.open(Deadline.after(5))
    yield bus
    await bus.close()


@pytest.fixture
async def gateway(catalog: Catalog, bus: EmbeddedBus) -> AsyncIterator[Inventory]:
    feed = ChangeFeed(catalog)
    await feed.start()
    yield Inventory(catalog, feed, bus, timeout=10, publish_timeout=10)
    await feed.stop()


async def serve(gateway: Inventory, bus: EmbeddedBus) -> None:
    handlers: Handlers = {
        InventoryRequested: gateway.on_requested,
        InventoryFound: gateway.on_found,
        ImageLost: gateway.on_lost,
    }
    await bus.consume(GATEWAY_EVENTS, dispatch(handlers), slots=4)


def lost_event(letter: str = "a") -> ImageLost:
    return ImageLost(
        correlation_id="x", system=SYSTEM, image_id=letter * 64, as_of=utcnow(), message="no packs"
    )


async def test_what_should_stand_is_told_in_pages(
    gateway: Inventory, catalog: Catalog, bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "PAGE", 3)
    letters = "abcdef0"
    await store(catalog, *(image(f"name{n}", letter) for n, letter in enumerate(letters)))
    gone = image("gone", "9", state=State.EXPIRED).but(current=None, image_id=None)
    elsewhere = image("there", "8", system=OTHER, key=f"{OTHER}/docker/there")
    before = image("first", "7", system="aaa", key="aaa/docker/first")
    await store(catalog, gone, elsewhere, before)
    heard = Recorder()
    await bus.consume(distributor_queue(SYSTEM), heard, slots=1)
    after: str | None = None
    found: list[str] = []
    for _ in range(9):
        seen = len(heard.events)
        await gateway.on_requested(
            InventoryRequested(correlation_id="x", system=SYSTEM, after=after)
        )
        await eventually(partial(heard_more, heard, seen), within=5)
        event = heard.events[-1]
        assert isinstance(event, InventoryExpected)
        assert len(event.images) <= 3
        found += [each.image_id[0] for each in event.images]
        after = event.next
        if after is None:
            break
    assert after is None
    assert sorted(found) == sorted(letters)


async def heard_more(heard: Recorder, seen: int) -> bool:
    return len(heard.events) > seen


async def test_what_nobody_stands_for_is_unknown(
    gateway: Inventory, catalog: Catalog, bus: EmbeddedBus
) -> None:
    heard = Recorder()
    await bus.consume(distributor_queue(SYSTEM), heard, slots=1)
    found = InventoryFound(
        correlation_id="x", system=SYSTEM, images=tuple(letter * 64 for letter in "abc")
    )
    await gateway.on_found(found)  # of an empty catalog: perhaps it is the wrong one
    await store(catalog, image("a", "a"), image("b", "b", system=OTHER, key=f"{OTHER}/b"))
    await gateway.on_found(found)
    await store(catalog, image("c", "c"), image("b", "b"))
    await gateway.on_found(found)  # all known by now
    await gateway.on_requested(InventoryRequested(correlation_id="end", system=SYSTEM))
    await eventually(lambda: isinstance(heard.events[-1], InventoryExpected), within=5)
    [unknown, _] = heard.events
    assert isinstance(unknown, InventoryUnknown)
    assert [each[0] for each in unknown.images] == ["b", "c"]


async def test_a_lost_image_is_found_no_more_and_the_next_pull_makes_it(
    gateway: Inventory, catalog: Catalog
) -> None:
    await store(catalog, image(pinned=True), image("twin", owner=1000), image("other", "b"))
    await gateway.on_lost(lost_event())
    await gateway.on_lost(lost_event())
    for record in (await stored(catalog), await stored(catalog, "twin", 1000)):
        assert (record.state, record.current, record.image_id) == (State.FAILURE, None, None)
        assert record.failure is not None
        assert record.failure.code == "image_lost"
        assert "no packs" in record.failure.message
        assert "pull it again" in record.failure.message
    assert (await stored(catalog)).pinned
    assert (await stored(catalog, "other")).state is State.READY
    events = [each.event for each in await catalog.pending(later(), 10)]
    assert [type(event) for event in events] == [ImageExpireRequested] * 2, "what is left may go"
    again = MACHINE.request(await stored(catalog), ASK, utcnow())
    assert again is not None
    assert [type(event) for event in again.events] == [PullRequested], "no question about freshness"


async def test_what_was_placed_since_is_not_meant(gateway: Inventory, catalog: Catalog) -> None:
    event = lost_event()
    record = image()
    assert record.current is not None
    since = record.current.model_copy(update={"ready_at": event.as_of + timedelta(seconds=1)})
    await store(catalog, record.but(current=since))
    await gateway.on_lost(event)
    assert (await stored(catalog)).state is State.READY


@pytest.mark.parametrize("state", [State.INIT, State.TRANSFER, State.FAILURE])
async def test_what_is_under_way_or_failed_only_loses_what_it_had(
    gateway: Inventory, catalog: Catalog, state: State
) -> None:
    failure = Failure(code="x", message="x") if state is State.FAILURE else None
    recipe = small_recipe("b") if state is State.TRANSFER else None
    await store(catalog, image(state=state, failure=failure, recipe=recipe, due_at=later()))
    await gateway.on_lost(lost_event())
    record = await stored(catalog)
    assert (record.state, record.current, record.failure) == (state, None, failure)


class Directory:
    """An image directory of a distributor that looks after it."""

    def __init__(self, root: Path, bus: EmbeddedBus, **settings: float) -> None:
        self.path = root / "images"
        self.path.mkdir()
        own = DistributorSettings.model_validate({"reconcile_grace": 1e-6, **settings})
        directories = {SYSTEM: self.path}
        self.mender = Mender(
            directories,
            {SYSTEM: Terms()},
            bus,
            PackStore(root / "store"),
            seconds=10,
            publish_timeout=5,
        )
        self.upkeep = Upkeep(directories, own, bus, self.mender, publish_timeout=5)
        self._bus = bus

    async def serve(self) -> None:
        handlers: Handlers = {
            InventoryExpected: self.upkeep.on_expected,
            InventoryUnknown: self.upkeep.on_unknown,
        }
        await self._bus.consume(distributor_queue(SYSTEM), dispatch(handlers), slots=4)
        self.mender.start()

    def put(self, letter: str, *, size: int = 8192, age: float = 60.0, kinds: str = "") -> None:
        for kind in kinds.split() or ("json", "meta", "squashfs"):
            path = self.path / f"{letter * 64}.{kind}"
            path.write_bytes(bytes(size if kind == "squashfs" else 1))
            then = time.time() - age
            os.utime(path, (then, then))

    def mark(self, letter: str) -> str | None:
        return Marks(self.path).read(letter * 64)


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
