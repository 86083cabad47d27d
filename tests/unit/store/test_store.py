"""The pack store: one maker per pack, leftovers of the dead, names that cannot be paths."""

import asyncio
import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, NotFoundError
from shared.files import publishing
from shared.store import locks as store_locks
from shared.store import scrub
from shared.store.store import PackStore
from tests.support.conditions import eventually
from tests.support.store import put_pack, write_pack

KEY = "ab" * 32

# Holds whatever it was told to until it is killed.
HOLDER = """
import asyncio, sys, time
from pathlib import Path
from shared.deadline import Deadline
from shared.files import publishing
from shared.store.store import PackStore

async def hold(store):
    async with store.building({key!r}, Deadline.after(10)) as path:
        with publishing(path) as file:
            file.write(b"half")
            file.flush()
            print("held", flush=True)
            time.sleep(60)

asyncio.run(hold(PackStore(Path(sys.argv[1]))))
"""


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    return PackStore(tmp_path / "store")


def held_elsewhere(store: PackStore) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(key=KEY), str(store.root)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def test_of_many_that_want_a_pack_one_makes_it(store: PackStore) -> None:
    makers = 0

    async def want() -> bytes:
        nonlocal makers
        async with store.building(KEY, Deadline.after(10)) as path:
            if path is not None:
                makers += 1
                await asyncio.sleep(0)
                write_pack(path, KEY, b"made")
        with store.open_pack(KEY) as pack:
            return pack.read(4)

    assert await asyncio.gather(*(want() for _ in range(8))) == [b"made"] * 8
    assert makers == 1
    assert not list((store.root / "locks").iterdir())


async def test_the_event_loop_never_waits_for_the_store(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of a file system that hangs would keep all pulls and their leases waiting."""
    here = threading.get_ident()
    callers: dict[str, set[int]] = {}

    def watched(where: object, name: str) -> None:
        real = getattr(where, name)

        def call(*args: object, **kwargs: object) -> object:
            callers.setdefault(name, set()).add(threading.get_ident())
            return real(*args, **kwargs)

        monkeypatch.setattr(where, name, call)

    watched(fcntl, "flock")
    for name in ("mkdir", "open", "unlink"):
        watched(Path, name)
    async with store.building(KEY, Deadline.after(5)) as path:
        assert path is not None
        with pytest.raises(DeadlineExceededError):
            async with store.building(KEY, Deadline.after(0.1)):
                pytest.fail("the lock was given twice")
    assert set(callers) == {"flock", "mkdir", "open", "unlink"}
    assert all(here not in threads for threads in callers.values())


async def test_who_is_cancelled_while_locking_keeps_no_lock(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate = threading.Event(), threading.Event()
    real = fcntl.flock

    def slow(file: BinaryIO, how: int) -> None:
        entered.set()
        assert gate.wait(10)
        real(file, how)

    async def want() -> None:
        async with store.building(KEY, Deadline.after(10)):
            pytest.fail("nobody wants it any more")

    monkeypatch.setattr(fcntl, "flock", slow)
    wanting = asyncio.create_task(want())
    assert await asyncio.to_thread(entered.wait, 10)
    wanting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wanting
    gate.set()
    async with store.building(KEY, Deadline.after(10)) as path:
        assert path == store.pack_path(KEY)
    await eventually(lambda: not list((store.root / "locks").iterdir()), within=10)


async def test_when_the_maker_fails_the_next_one_makes_it(store: PackStore) -> None:
    with pytest.raises(RuntimeError):
        async with store.building(KEY, Deadline.after(5)):
            raise RuntimeError
    async with store.building(KEY, Deadline.after(5)) as path:
        assert path == store.pack_path(KEY)


async def test_waiting_for_another_process_ends_with_the_deadline(store: PackStore) -> None:
    process = held_elsewhere(store)
    try:
        with pytest.raises(DeadlineExceededError, match="another converter"):
            async with store.building(KEY, Deadline.after(0.1)):
                pytest.fail("the lock was given twice")
        assert store.remove_stale() == 0, "the living owner's files were removed"
    finally:
        end(process)


async def test_a_lock_and_a_partial_file_die_with_their_owner(store: PackStore) -> None:
    process = held_elsewhere(store)
    end(process)
    (partial,) = store.root.rglob("*.partial")
    async with store.building(KEY, Deadline.after(5)) as path:
        assert path is not None
    assert store.remove_stale() == 1
    assert not partial.exists()


async def test_stale_locks_are_removed(store: PackStore) -> None:
    end(held_elsewhere(store))
    assert store.remove_stale() == 2
    assert not list((store.root / "locks").iterdir())


def test_who_is_about_to_scrub_is_not_disturbed(store: PackStore) -> None:
    """Asked for while a sweep holds it, it would be taken for another scrubber's."""
    path = store.lock_path(scrub.LOCK)
    path.parent.mkdir(parents=True)
    path.touch()
    assert store.remove_stale() == 0
    assert path.exists()


def test_tables_are_named_by_their_content(store: PackStore) -> None:
    sha256 = store.put_tables(b"tables")
    assert sha256 == hashlib.sha256(b"tables").hexdigest()
    assert store.put_tables(b"tables") == sha256
    with store.open_tables(sha256) as file:
        assert file.read() == b"tables"


def test_what_the_dead_left_goes_on_nfs_too(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `flock` is emulated, and locks exclusively only what is open for writing."""
    place = store.pack_path(KEY)
    write_pack(place, KEY)
    partial = place.with_name(f".{place.name}.{'0' * 12}.partial")
    partial.write_bytes(b"half")
    real = fcntl.flock

    def emulated(file: BinaryIO, how: int) -> None:
        if how & fcntl.LOCK_EX and not fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", emulated)
    assert store.remove_stale() == 1
    assert not partial.exists()


async def test_a_lock_file_that_nfs_only_renamed_is_no_lock(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is removed there while somebody has it open gets another name, and keeps a link."""
    path = store.lock_path(KEY)
    real = fcntl.flock

    def late(file: BinaryIO, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        path.rename(path.with_name(".nfs0001"))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert store_locks.try_lock(path, create=True) is None


def test_a_file_that_was_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with suppress(RuntimeError), publishing(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_a_name_is_never_a_path(store: PackStore, name: str) -> None:
    with pytest.raises(NotFoundError):
        store.pack_path(name)
    with pytest.raises(NotFoundError):
        store.open_tables(name)


def test_what_is_missing_is_said_so_and_can_be_made_again(store: PackStore) -> None:
    assert not store.use_pack(KEY)
    for ask in (store.open_pack, store.open_tables):
        with pytest.raises(NotFoundError, match="pull again") as caught:
            ask(KEY)
        assert caught.value.retryable


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rename_another(path: Path) -> None:
    write_pack(path, "cd" * 32)


def spoil_the_end(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-136] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, empty, rename_another, spoil_the_end])
async def test_a_pack_that_cannot_be_is_made_again(
    store: PackStore, damage: Callable[[Path], None]
) -> None:
    place = store.pack_path(KEY)
    write_pack(place, KEY)
    damage(place)
    async with store.building(KEY, Deadline.after(5)) as path:
        assert path == place
        write_pack(path, KEY)
    async with store.building(KEY, Deadline.after(5)) as path:
        assert path is None
    (aside,) = (store.root / "damaged").iterdir()
    assert aside.name.startswith(f"{KEY}.pack.")


def test_a_damaged_index_is_found_by_who_needs_it(store: PackStore) -> None:
    sound, spoiled = put_pack(store, "sound"), put_pack(store, "spoiled", b"d" * 100)
    path = store.pack_path(spoiled)
    content = bytearray(path.read_bytes())
    content[110] ^= 1  # within the index
    path.write_bytes(content)
    assert store.use_pack(spoiled), "the end is as it should be"
    found = store.set_aside_unreadable([sound, spoiled, "ef" * 32], threading.Event())
    assert found == 2, "one is not even there"
    assert (store.use_pack(sound), store.use_pack(spoiled)) == (True, False)
    assert store.set_aside_unreadable([sound], threading.Event()) == 0


def test_damaged_data_is_found_too(store: PackStore) -> None:
    key = put_pack(store, "spoiled", b"d" * 100)
    path = store.pack_path(key)
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    assert store.set_aside_unreadable([key], threading.Event()) == 1
    assert not path.exists()


@pytest.mark.parametrize("found", [b"tables", b"Tables!", b"", b"tables!!"])
def test_damaged_tables_are_replaced_when_they_are_made_again(
    store: PackStore, found: bytes
) -> None:
    sha256 = store.put_tables(b"tables!")
    store.tables_path(sha256).write_bytes(found)
    assert store.put_tables(b"tables!") == sha256
    assert store.tables_path(sha256).read_bytes() == b"tables!"


def test_who_holds_a_file_for_ever_is_not_waited_for(
    store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_locks, "_FILE_SECONDS", 0.05)
    key = put_pack(store, "base")
    with store_locks.changing(store.pack_path(key)) as seen:
        assert seen is not None
        with pytest.raises(store_locks.StoreBusyError, match="hangs") as caught:
            store.use_pack(key)
    assert caught.value.retryable
    assert store.use_pack(key)


def test_nobody_else_gets_at_what_is_in_the_store(tmp_path: Path) -> None:
    made, found = tmp_path / "made" / "store", tmp_path / "found"
    found.mkdir()
    found.chmod(0o2775)  # as a site shares it among its services
    for root in (made, found):
        PackStore(root).keep_to_itself()
    assert made.stat().st_mode & 0o007 == 0
    assert found.stat().st_mode & 0o7777 == 0o2770
