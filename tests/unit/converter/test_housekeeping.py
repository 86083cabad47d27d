"""The converter cleans and reads its store by itself, and leaves no thread behind."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from services.converter import housekeeping
from services.converter.housekeeping import Housekeeping
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import GATEWAY_REPORTS
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import Counted, StorageReported
from shared.storage_reports import Place, StorageReports
from shared.store import collect as store_collect
from shared.store.locks import release, try_lock
from shared.store.scrub import read_state
from shared.store.store import PackStore
from tests.support.bus import Recorder
from tests.support.conditions import eventually
from tests.support.store import DAY, grow_older, put_pack, remember

SETTINGS = {
    "converter": {"pull_timeout": 10.0},
    "housekeeping": {"interval": 0.05, "grace": 3600.0, "keep_unused_days": 10},
}


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "store")


@pytest.fixture
async def bus() -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus([GATEWAY_REPORTS])
    await bus.open(Deadline.after(5))
    yield bus
    await bus.close()


def housekeeping_of(
    store: PackStore, settings: Mapping[str, object], bus: EmbeddedBus
) -> Housekeeping:
    reports = StorageReports(bus, [Place(store.root, housekeeping.FREE.set)], 5)
    return Housekeeping(Settings.model_validate(settings), store, reports)


@pytest.fixture
async def keeping(store: PackStore, bus: EmbeddedBus) -> AsyncIterator[Housekeeping]:
    keeping = housekeeping_of(store, SETTINGS, bus)
    yield keeping
    await keeping.stop()


def paths(store: PackStore) -> list[Path]:
    return [path for path in (store.root / "packs").rglob("*") if path.is_file()]


async def test_what_nobody_needs_goes_and_is_counted(
    store: PackStore, keeping: Housekeeping
) -> None:
    held, loose = put_pack(store, "held"), put_pack(store, "loose")
    remember(store, "image", [held])
    grow_older(store.root, DAY)
    size = store.pack_path(loose).stat().st_size
    before = housekeeping.REMOVED_BYTES._value.get()
    keeping.start()
    await eventually(lambda: paths(store) == [store.pack_path(held)], within=10)
    await eventually(lambda: housekeeping.FILES.labels("packs")._value.get() == 1, within=10)
    assert housekeeping.REMOVED_BYTES._value.get() - before == size


async def test_damage_is_found_again_and_again(store: PackStore, keeping: Housekeeping) -> None:
    key = put_pack(store, "one")
    store.pack_path(key).write_bytes(b"x" * 1000)
    keeping.start()
    await eventually(lambda: not paths(store), within=10)

    def done() -> bool:
        state = read_state(store.root)
        return state is not None and state.kind == "done"

    await eventually(done, within=10)


async def test_reading_is_no_faster_than_allowed(store: PackStore, bus: EmbeddedBus) -> None:
    put_pack(store, "one", b"x" * (1 << 20))
    settings = {**SETTINGS, "housekeeping": {"scrub_rate": 1 << 20}}
    keeping = housekeeping_of(store, settings, bus)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await keeping.scrub()
    assert loop.time() - began >= 1.0


async def test_one_that_is_stopped_lets_others_go_on(store: PackStore, bus: EmbeddedBus) -> None:
    for number in range(20):
        put_pack(store, str(number), b"x" * (1 << 20))
    settings = {**SETTINGS, "housekeeping": {"scrub_rate": 1 << 20}}
    keeping = housekeeping_of(store, settings, bus)
    keeping.start()
    await eventually(lambda: store.lock_path("scrub").exists(), within=10)
    await keeping.stop()
    assert not list((store.root / "locks").iterdir())


async def test_another_converter_may_be_at_it(store: PackStore, keeping: Housekeeping) -> None:
    put_pack(store, "loose")
    grow_older(store.root, DAY)
    lock_path = store.lock_path(store_collect.LOCK)
    lock = try_lock(lock_path, create=True)
    assert lock is not None
    await keeping.collect()
    assert len(paths(store)) == 1
    release(lock, lock_path)
    await keeping.collect()
    assert paths(store) == []


async def test_the_grace_period_outlasts_every_pull(store: PackStore, bus: EmbeddedBus) -> None:
    put_pack(store, "found by a pull that is still running")
    grow_older(store.root, 2 * 3600.0)
    settings = {**SETTINGS, "converter": {"pull_timeout": 3 * 3600.0}}
    await housekeeping_of(store, settings, bus).collect()
    assert len(paths(store)) == 1


async def test_what_is_left_is_told(
    store: PackStore, keeping: Housekeeping, bus: EmbeddedBus
) -> None:
    heard = Recorder()
    await bus.consume(GATEWAY_REPORTS, heard, slots=1)
    held = put_pack(store, "held")
    remember(store, "image", [held])
    put_pack(store, "loose")
    grow_older(store.root, DAY)
    await keeping.collect()
    await eventually(lambda: bool(heard.events), within=10)
    [told] = heard.events
    assert isinstance(told, StorageReported)
    left = int(housekeeping.BYTES._value.get())
    assert left > store.pack_path(held).stat().st_size  # and its tables
    assert told.counted == Counted(items=1, bytes=left)
    assert told.system is None
    assert told.free_bytes == housekeeping.FREE._value.get() > 0
