"""What was acknowledged stays true, and what fails says so, whatever happens to the database."""

import asyncio
import gc
import re
import resource
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from shared.catalog.interface import Catalog
from shared.catalog.open import catalog_at
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, ConfigError, DrayError
from shared.models import utcnow
from tests.support.catalogs import count_up, later, node_record, opened, put, released, soon
from tests.support.conditions import eventually
from tests.support.mongo import Mongod, running_mongod
from tests.support.ports import free_port

# PyMongo drops a socket, unclosed, where it cancels its own attempt to connect to a lost server.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


@pytest.fixture
def sqlite_url(file: Path) -> str:
    return f"sqlite://{file}"


@pytest.fixture
def own_mongod(tmp_path: Path) -> Iterator[Mongod]:
    directory = tmp_path / "mongod"
    directory.mkdir()
    with running_mongod(directory) as server:
        yield server
    gc.collect()  # here, where the driver's sockets may be ignored, not in some later test


@contextmanager
def writing_process(url: str, *keys: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.catalog_writer", url, *keys]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def acknowledged(process: subprocess.Popen[str], changes: int | None = None) -> dict[str, int]:
    """The last version of each key, from so many lines, or from all that are left."""
    last: dict[str, int] = {}
    assert process.stdout is not None
    for number, line in enumerate(process.stdout, 1):
        if not line.endswith("\n"):
            break  # killed while it wrote
        key, version = line.split()
        last[key] = max(int(version), last.get(key, 0))
        if number == changes:
            break
    return last


async def assert_consistent(catalog: Catalog, promised: dict[str, int]) -> None:
    """Every promised change is there, and each change that is there has its one event."""
    pending = await catalog.pending(later(), 1_000_000)
    events = Counter(each.key for each in pending)
    assert promised
    for key, version in promised.items():
        record = await catalog.nodes.get(key)
        assert record is not None
        assert record.version >= version
        assert record.mounts == record.version == events[key]


async def test_sqlite_keeps_what_a_killed_process_was_promised(sqlite_url: str) -> None:
    """Two processes write one file; one is killed in the middle, the other must not suffer."""
    with (
        writing_process(sqlite_url, "a", "shared") as victim,
        writing_process(sqlite_url, "b", "shared") as survivor,
    ):
        acknowledged(survivor, 20)
        promised = acknowledged(victim, 60)
        victim.kill()
        promised |= acknowledged(victim)
        more = acknowledged(survivor, 60)
        survivor.kill()
        more |= acknowledged(survivor)
    both = {key: max(promised.get(key, 0), more.get(key, 0)) for key in promised | more}
    assert both.keys() == {"a", "b", "shared"}
    async with opened(sqlite_url) as catalog:
        await assert_consistent(catalog, both)


async def test_sqlite_files_can_be_read_by_their_owner_only(sqlite_url: str, file: Path) -> None:
    async with opened(sqlite_url) as catalog:
        await catalog.nodes.change("n", count_up("n"), soon())
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()}
    assert modes == {"catalog.db": 0o600, "catalog.db-wal": 0o600, "catalog.db-shm": 0o600}


async def test_sqlite_locked_by_another_program_is_an_error_in_time_and_then_over(
    sqlite_url: str, file: Path
) -> None:
    async with opened(sqlite_url) as catalog:
        await catalog.nodes.change("n", count_up("n", released()), soon())
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(CatalogUnavailableError, match=re.escape(str(file))):
                await catalog.nodes.change("n", count_up("n", released()), Deadline.after(0.3))
            assert time.monotonic() - began < 1
            assert await catalog.nodes.get("n"), "reading goes on"
        assert await catalog.nodes.change("n", count_up("n", released()), soon())
        await assert_consistent(catalog, {"n": 2})


async def test_calls_do_not_pile_up_behind_a_database_that_is_stuck(
    sqlite_url: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.catalog.session.MOST_CALLS", 3)
    async with opened(sqlite_url) as catalog:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(3):
                step = put(node_record(f"n{number}"))
                with pytest.raises(CatalogUnavailableError, match="timed out"):
                    await catalog.nodes.change(f"n{number}", step, Deadline.after(0.05))
            with pytest.raises(CatalogUnavailableError, match="3 calls wait for it already"):
                await catalog.nodes.get("n0")

        async def answers() -> bool:
            try:
                return len(await catalog.nodes.find({}, limit=99)) == 3
            except CatalogUnavailableError:
                return False

        await eventually(answers, within=10)


async def test_sqlite_that_cannot_grow_loses_nothing_and_recovers(
    sqlite_url: str, file: Path
) -> None:
    async with opened(sqlite_url) as catalog:
        await catalog.nodes.change("n", count_up("n", released()), soon())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        wal = file.with_name("catalog.db-wal")
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 4096, limits[1]))
        try:
            big = node_record("n", kernel="x" * 100_000)
            with pytest.raises(CatalogUnavailableError, match="disk"):
                await catalog.nodes.change("n", put(big, released()), soon())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        await assert_consistent(catalog, {"n": 1})
        assert await catalog.nodes.change("n", count_up("n", released()), soon())
        await assert_consistent(catalog, {"n": 2})


async def test_sqlite_that_refuses_an_event_refuses_its_change_and_goes_on(
    sqlite_url: str, file: Path
) -> None:
    """The change's own statement has succeeded when the second one, for its event, fails."""
    async with opened(sqlite_url) as catalog, opened(sqlite_url) as other:
        await catalog.nodes.change("n", count_up("n", released()), soon())
        with closing(sqlite3.connect(file)) as trap:
            trap.execute(
                "CREATE TRIGGER trap BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        with pytest.raises(CatalogUnavailableError, match="full"):
            await catalog.nodes.change("n", count_up("n", released()), soon())
        with closing(sqlite3.connect(file)) as trap:
            trap.execute("DROP TRIGGER trap")
        await assert_consistent(other, {"n": 1})
        assert await other.nodes.change("n", count_up("n", released()), soon())
        assert await catalog.nodes.change("n", count_up("n", released()), soon())
        await assert_consistent(other, {"n": 3})


async def test_sqlite_names_the_file_that_it_cannot_use(file: Path) -> None:
    file.write_bytes(b"not a database, but long enough to have a header" * 100)
    for path in (file, file.parent, file / "below-a-file", Path("/proc/catalog.db")):
        catalog = catalog_at(f"sqlite://{path}", timeout=1)
        with pytest.raises(CatalogUnavailableError, match=re.escape(str(path))):
            await catalog.open(Deadline.after(5))
        with pytest.raises(CatalogUnavailableError, match="is not open"):
            await catalog.ping(soon())
        await catalog.close()


async def test_sqlite_of_a_newer_version_is_left_alone(sqlite_url: str, file: Path) -> None:
    with closing(sqlite3.connect(file)) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="schema 99, this version knows 2"):
        await catalog_at(sqlite_url, timeout=1).open(soon())
    with closing(sqlite3.connect(file)) as newer:
        assert newer.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


async def test_sqlite_tells_versions_that_know_no_owners_to_stay_away(
    sqlite_url: str, file: Path
) -> None:
    with closing(sqlite3.connect(file)) as older:
        older.execute("PRAGMA user_version = 1")
    async with opened(sqlite_url):
        pass
    with closing(sqlite3.connect(file)) as older:
        assert older.execute("PRAGMA user_version").fetchone() == (2,)


async def test_mongodb_keeps_what_it_promised_when_it_is_killed(own_mongod: Mongod) -> None:
    promised: dict[str, int] = {}
    errors: list[DrayError] = []

    async with opened(own_mongod.url(), timeout=2) as catalog:

        async def count(key: str) -> None:
            while True:
                step = count_up(key, released())
                try:
                    record = await catalog.nodes.change(key, step, Deadline.after(2))
                except DrayError as exc:
                    errors.append(exc)
                else:
                    assert record is not None
                    promised[key] = record.version

        def changes() -> int:
            return sum(promised.values())

        writers = [asyncio.create_task(count(key)) for key in ("a", "b", "c", "d")]
        try:
            await eventually(lambda: changes() > 100, within=20)
            await asyncio.to_thread(own_mongod.kill)
            await eventually(lambda: len(errors) > 3, within=10)
            with pytest.raises(CatalogUnavailableError):
                await catalog.ping(Deadline.after(1))
            before = changes()
            await asyncio.to_thread(own_mongod.start)
            await eventually(lambda: changes() > before + 50, within=20)
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
        assert all(writer.cancelled() for writer in writers), "no other kind of error got out"
        assert {type(error) for error in errors} == {CatalogUnavailableError}
    # A cancelled writer's last change may still have been under way; closing waited for it.
    async with opened(own_mongod.url()) as catalog:
        await assert_consistent(catalog, promised)


async def test_mongodb_that_hangs_is_an_error_in_time_and_then_over(own_mongod: Mongod) -> None:
    async with opened(own_mongod.url(), timeout=0.5) as catalog:
        await catalog.nodes.change("n", count_up("n", released()), soon())
        own_mongod.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(CatalogUnavailableError, match=str(own_mongod.port)):
                await catalog.nodes.get("n")
            with pytest.raises(CatalogUnavailableError, match=str(own_mongod.port)):
                await catalog.nodes.change("n", count_up("n", released()), Deadline.after(0.5))
            with pytest.raises(CatalogUnavailableError, match=str(own_mongod.port)):
                await catalog.pending(utcnow(), 10)
            assert time.monotonic() - began < 3
        finally:
            own_mongod.thaw()

        async def answers() -> bool:
            try:
                await catalog.ping(Deadline.after(1))
            except CatalogUnavailableError:
                return False
            return True

        await eventually(answers, within=15)
        assert await catalog.nodes.change("n", count_up("n", released()), soon())
        await assert_consistent(catalog, {"n": 2})


async def test_mongodb_out_of_reach_is_told_by_host_without_the_password() -> None:
    port = free_port()
    catalog = catalog_at(f"mongodb://user:s3cret@127.0.0.1:{port}/dray", timeout=0.5)
    with pytest.raises(
        CatalogUnavailableError, match=f"127.0.0.1:{port}.*Connect call failed"
    ) as caught:
        await catalog.open(Deadline.after(5))
    assert "s3cret" not in repr(caught.value)
    with pytest.raises(CatalogUnavailableError, match="is not open"):
        await catalog.images.get("key")


async def test_mongodb_that_refuses_the_password_is_told_so(own_mongod: Mongod) -> None:
    url = own_mongod.url().replace("mongodb://", "mongodb://user:s3cret@")
    with pytest.raises(CatalogUnavailableError, match="check the user, the password") as caught:
        await catalog_at(url, timeout=2).open(soon())
    assert "s3cret" not in repr(caught.value)


async def test_mongodb_of_a_newer_version_is_left_alone(own_mongod: Mongod) -> None:
    with own_mongod.client() as client:
        client["dray"]["meta"].insert_one({"_id": "schema", "schema": 99})
    with pytest.raises(ConfigError, match="schema 99, this version knows 2"):
        await catalog_at(own_mongod.url(), timeout=2).open(soon())
    with own_mongod.client() as client:
        assert client["dray"].list_collection_names() == ["meta"]


async def test_mongodb_tells_versions_that_know_no_owners_to_stay_away(own_mongod: Mongod) -> None:
    with own_mongod.client() as client:
        meta = client["dray"]["meta"]
        meta.insert_one({"_id": "schema", "schema": 1})
        async with opened(own_mongod.url()):
            pass
        assert meta.find_one({"_id": "schema"}) == {"_id": "schema", "schema": 2}


async def test_a_mongod_that_is_no_replica_set_is_refused(tmp_path: Path) -> None:
    with (
        running_mongod(tmp_path, replica_set=False) as server,
        pytest.raises(ConfigError, match="no replica set: start mongod with --replSet"),
    ):
        await catalog_at(server.url(), timeout=2).open(soon())
