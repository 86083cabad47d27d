"""The pack store: one maker per pack, leftovers of the dead, names that cannot be paths."""

import asyncio
import fcntl
import hashlib
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, NotFoundError
from shared.image.files import publishing
from shared.image.store import PackStore
from tests.support.conditions import eventually

KEY = "ab" * 32

# Holds whatever it was told to until it is killed.
HOLDER = """
import asyncio, sys, time
from pathlib import Path
from shared.deadline import Deadline
from shared.image.files import publishing
from shared.image.store import PackStore

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
                with publishing(path) as file:
                    file.write(b"made")
        with store.open_pack(KEY) as pack:
            return pack.read()

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
    for name in ("is_file", "mkdir", "open", "unlink"):
        watched(Path, name)
    async with store.building(KEY, Deadline.after(5)) as path:
        assert path is not None
        with pytest.raises(DeadlineExceededError):
            async with store.building(KEY, Deadline.after(0.1)):
                pytest.fail("the lock was given twice")
    assert set(callers) == {"flock", "is_file", "mkdir", "open", "unlink"}
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


def test_tables_are_named_by_their_content(store: PackStore) -> None:
    sha256 = store.put_tables(b"tables")
    assert sha256 == hashlib.sha256(b"tables").hexdigest()
    assert store.put_tables(b"tables") == sha256
    with store.open_tables(sha256) as file:
        assert file.read() == b"tables"


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


def test_what_is_missing_is_said_so(store: PackStore) -> None:
    assert not store.has_pack(KEY)
    with pytest.raises(NotFoundError, match="pull again"):
        store.open_pack(KEY)
