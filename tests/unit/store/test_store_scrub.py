"""Scrubbing finds damage, goes on where it was, and reads nothing twice."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.image.packs import pack
from shared.store import scrub as store_scrub
from shared.store.locks import release, try_lock
from shared.store.scrub import ScrubState, read_state, scrub
from shared.store.store import PackStore
from tests.support.store import DAY, grow_older, key_of, put_pack, write_pack

EVERY = 30 * DAY


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "store")


def run(store: PackStore) -> int:
    return sum(scrub(store, EVERY))


def test_a_clock_that_was_wrong_once_does_not_end_all_reading(store: PackStore) -> None:
    put_pack(store, "one")
    ahead = ScrubState(began=time.time() + 2 * EVERY, kind="done")
    (store.root / store_scrub.STATE).write_text(ahead.model_dump_json())
    assert run(store) > 0
    assert run(store) == 0


def damaged(store: PackStore) -> set[str]:
    directory = store.root / "damaged"
    return {path.name[:64] for path in directory.iterdir()} if directory.exists() else set()


def flip(offset: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 0x10
        path.write_bytes(content)

    return damage


def another(path: Path) -> None:
    write_pack(path, key_of("another"))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip(0), id="data"),
        pytest.param(flip(405), id="index"),
        pytest.param(flip(-10), id="key"),
        pytest.param(flip(-130), id="footer"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-7]), id="short"),
        pytest.param(another, id="another pack"),
    ],
)
def test_every_damage_to_a_pack_is_found(store: PackStore, damage: Callable[[Path], None]) -> None:
    good, bad = put_pack(store, "good"), put_pack(store, "bad")
    damage(store.pack_path(bad))
    run(store)
    assert damaged(store) == {bad}
    assert (store.use_pack(good), store.use_pack(bad)) == (True, False)


def test_damaged_tables_are_found(store: PackStore) -> None:
    good, bad = store.put_tables(b"good"), store.put_tables(b"bad")
    store.tables_path(bad).write_bytes(b"baf")
    run(store)
    assert damaged(store) == {bad}
    assert store.tables_path(good).exists()


def test_packs_of_other_versions_are_none_of_our_business(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = put_pack(store, "made today")
    monkeypatch.setattr(pack, "PACK_VERSION", pack.PACK_VERSION + 1)
    run(store)
    assert damaged(store) == set()
    assert store.pack_path(key).exists()


def test_a_pass_begins_when_it_is_due(store: PackStore) -> None:
    put_pack(store, "one", b"x" * 1000)
    first = run(store)
    assert first > 1000
    assert run(store) == 0, "just done"
    state = read_state(store.root)
    assert state is not None
    assert state.kind == "done"
    earlier = state.model_copy(update={"began": state.began - EVERY})
    (store.root / store_scrub.STATE).write_text(earlier.model_dump_json())
    assert run(store) == first


def test_whoever_comes_next_goes_on_there(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first scrubber dies somewhere; the second reads the rest."""
    monkeypatch.setattr(store_scrub, "_SAVE_SECONDS", -1.0)
    for number in range(20):
        put_pack(store, str(number), b"x" * 1000)
    store.put_tables(b"tables")
    last = max(key_of(str(number)) for number in range(20))
    flip(0)(store.pack_path(last))
    whole = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    first = scrub(store, EVERY)
    read = 0
    while read < whole // 2:
        read += next(first)
    del first
    assert damaged(store) == set()
    assert read + run(store) <= whole, "what was read is not read again"
    assert damaged(store) == {last}


@pytest.mark.parametrize("text", ["", "{", '{"v": 2}', '{"began": -1}', '{"began": "x"}'])
def test_a_state_that_nobody_understands_begins_anew(store: PackStore, text: str) -> None:
    put_pack(store, "one")
    (store.root / store_scrub.STATE).write_text(text)
    assert run(store) > 0
    assert read_state(store.root) is not None


def test_a_pass_over_the_tables_reads_no_pack(store: PackStore) -> None:
    put_pack(store, "one", b"x" * 1000)
    store.put_tables(b"tables")
    state = ScrubState(began=time.time(), kind="tables")
    (store.root / store_scrub.STATE).write_text(state.model_dump_json())
    assert run(store) == len(b"tables")


def test_while_one_scrubs_no_other_does(store: PackStore) -> None:
    put_pack(store, "one")
    lock_path = store.lock_path(store_scrub.LOCK)
    lock = try_lock(lock_path, create=True)
    assert lock is not None
    assert run(store) == 0
    release(lock, lock_path)
    assert run(store) > 0


def test_files_may_go_meanwhile(store: PackStore) -> None:
    for number in range(5):
        put_pack(store, str(number))
    steps = scrub(store, EVERY)
    next(steps)
    for path in (store.root / "packs").rglob("*.pack"):
        path.unlink()
    assert sum(steps) > 0, "what was open is read to its end"
    assert damaged(store) == set()


def test_scrubbing_is_no_use(store: PackStore) -> None:
    """Else nothing would ever be forgotten."""
    key = put_pack(store, "one")
    grow_older(store.root, 2 * DAY)
    before = store.pack_path(key).stat().st_mtime_ns
    run(store)
    assert store.pack_path(key).stat().st_mtime_ns == before
