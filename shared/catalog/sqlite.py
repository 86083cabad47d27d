"""The catalog in one SQLite file: for one machine, with as many processes on it as you like.

WAL with synchronous=FULL: what was acknowledged survives a killed process and a power cut. One
connection writes, one transaction at a time; another reads meanwhile. Each connection has a
thread of its own (aiosqlite), so the event loop never waits for the disk.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiosqlite

from shared.catalog.sqlite_queries import (
    column,
    condition,
    newest_query,
    total_of,
    totals_query,
)
from shared.catalog.store import (
    Found,
    FoundChange,
    FoundEntry,
    Layout,
    OutboxEntry,
    Row,
    Write,
)
from shared.catalog.totals import Place, Total, Totals, Wanted
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, ConfigError

SCHEMA = 2
"""1 knew no owners: its gateways would show private images to everybody, and forget whose."""
LOCK_SECONDS = 5.0
"""How long a write waits for another process's transaction."""

_TABLE = """
    CREATE TABLE IF NOT EXISTS {table} (
        key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, due_at TEXT,
        changed INTEGER NOT NULL DEFAULT 0, document TEXT NOT NULL
    )"""
_ADD_CHANGED = "ALTER TABLE {table} ADD COLUMN changed INTEGER NOT NULL DEFAULT 0"
_CHANGED_INDEX = "CREATE INDEX IF NOT EXISTS {table}_changed ON {table} (changed, key, version)"
_DUE_INDEX = "CREATE INDEX IF NOT EXISTS {table}_due ON {table} (due_at) WHERE due_at IS NOT NULL"
_FIELD_INDEX = "CREATE INDEX IF NOT EXISTS {table}_by_{name} ON {table} ({columns})"
_OUTBOX = """
    CREATE TABLE IF NOT EXISTS outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, collection TEXT NOT NULL,
        key TEXT NOT NULL, stored_at TEXT NOT NULL, body TEXT NOT NULL
    )"""
_OUTBOX_INDEXES = (
    "CREATE INDEX IF NOT EXISTS outbox_stored ON outbox (stored_at, sequence)",
    "CREATE INDEX IF NOT EXISTS outbox_id ON outbox (id)",
    "CREATE INDEX IF NOT EXISTS outbox_key ON outbox (key)",
)

_READ = "SELECT key, document FROM {table} WHERE key = ?"
_INSERT = """
    INSERT INTO {table} (changed, document, due_at, version, key) VALUES ({next}, ?, ?, ?, ?)
    ON CONFLICT (key) DO NOTHING RETURNING 1"""
_UPSERT = """
    INSERT INTO {table} (changed, document, due_at, version, key) VALUES ({next}, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET changed = excluded.changed, document = excluded.document,
    due_at = excluded.due_at, version = excluded.version"""
_VERSIONS = "SELECT key, version FROM {table} WHERE key IN ({marks})"
_UPDATE = """
    UPDATE {table} SET changed = {next}, document = ?, due_at = ?, version = ?
    WHERE key = ? AND version = ? RETURNING 1"""
# Writers take turns, so positions grow in the order of commits: as microseconds if time agrees.
_NEXT = "max(?, (SELECT coalesce(max(changed), 0) + 1 FROM {table}))"
_POSITION = "SELECT coalesce(max(changed), 0) FROM {table}"
_CHANGED = """
    SELECT key, version, changed FROM {table} WHERE changed > ? ORDER BY changed LIMIT ?"""
_READ_MANY = "SELECT key, document FROM {table} WHERE key IN ({marks})"
_REMOVE = "DELETE FROM {table} WHERE key = ? AND version = ? AND {settled} RETURNING 1"
_REMOVE_ONE_OF_MANY = "DELETE FROM {table} WHERE key = ? AND version = ? AND {settled}"
_FORGET = """
    DELETE FROM {table} WHERE key IN (
        SELECT key FROM {table} WHERE due_at <= ? AND {settled} ORDER BY due_at LIMIT ?
    ) RETURNING 1"""
_SETTLED = """
    NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.key = {table}.key AND collection = '{table}')"""
_FIND = "SELECT key, document FROM {table} WHERE {condition} ORDER BY key LIMIT ?"
_DUE = "SELECT key, document FROM {table} WHERE due_at <= ? ORDER BY due_at, key LIMIT ?"
_POST = "INSERT INTO outbox (id, collection, key, stored_at, body) VALUES (?, ?, ?, ?, ?)"
_PENDING = """
    SELECT collection, key, body FROM outbox WHERE stored_at < ?
    ORDER BY stored_at, sequence LIMIT ?"""
_SETTLE = "DELETE FROM outbox WHERE id = ? AND collection = ? AND key = ?"


class SqliteStore:
    """A `Store` in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        # Adding up takes longer than anything else, and nobody should wait behind it.
        self._counter: aiosqlite.Connection | None = None
        self._writing = asyncio.Lock()

    @property
    def place(self) -> str:
        return f"the catalog's SQLite file {self._path}"

    async def open(self, layouts: Sequence[Layout], deadline: Deadline) -> None:
        with self._failing_plainly():
            await asyncio.to_thread(_create, self._path)
            try:
                self._writer = await self._connect()
                await self._use_wal(self._writer, deadline)
                await self._prepare(layouts)
                self._reader = await self._connect_reading()
                self._counter = await self._connect_reading()
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        connections = [each for each in (self._counter, self._reader, self._writer) if each]
        self._counter = self._reader = self._writer = None
        for connection in connections:
            await connection.close()

    async def ping(self) -> None:
        await self._select("SELECT count(*) FROM sqlite_schema")

    async def read(self, collection: str, key: str) -> Found | None:
        rows = await self._select(_READ.format(table=collection), key)
        return Found(*rows[0]) if rows else None

    async def write(
        self, collection: str, row: Row, expected: int | None, entries: Sequence[OutboxEntry]
    ) -> bool:
        now = time.time_ns() // 1000
        values: tuple[object, ...] = (now, row.document, row.due_at, row.version, row.key)
        position = _NEXT.format(table=collection)
        if expected is None:
            statement = _INSERT.format(table=collection, next=position)
        else:
            statement = _UPDATE.format(table=collection, next=position)
            values += (expected,)
        async with self._transaction() as writer:
            if not await writer.execute_fetchall(statement, values):
                return False
            if entries:
                posted = [(e.id, collection, row.key, e.stored_at, e.body) for e in entries]
                await writer.executemany(_POST, posted)
        return True

    async def write_all(self, collection: str, writes: Sequence[Write]) -> set[str]:
        keys = [each.row.key for each in writes]
        versions = _VERSIONS.format(table=collection, marks=", ".join("?" * len(keys)))
        upsert = _UPSERT.format(table=collection, next=_NEXT.format(table=collection))
        now = time.time_ns() // 1000
        async with self._transaction() as writer:
            # Nobody else writes from here on, so what is compared now stays so.
            found = await writer.execute_fetchall(versions, keys)
            stored = {str(row[0]): int(row[1]) for row in found}
            fitting = [each for each in writes if stored.get(each.row.key) == each.expected]
            rows = [each.row for each in fitting]
            values = [(now, row.document, row.due_at, row.version, row.key) for row in rows]
            await writer.executemany(upsert, values)
            posted = [
                (entry.id, collection, each.row.key, entry.stored_at, entry.body)
                for each in fitting
                for entry in each.entries
            ]
            await writer.executemany(_POST, posted)
        return set(keys) - {row.key for row in rows}

    async def find(
        self, collection: str, wanted: Wanted, after: str | None, limit: int
    ) -> list[Found]:
        where, values = condition(wanted)
        if after is not None:
            where, values = f"{where} AND key > ?", [*values, after]
        statement = _FIND.format(table=collection, condition=where)
        return [Found(*row) for row in await self._select(statement, *values, limit)]

    async def newest(
        self, collection: str, wanted: Wanted, field: str, beyond: Place | None, limit: int
    ) -> list[Found]:
        statement, values = newest_query(collection, wanted, field, beyond, limit)
        return [Found(*row) for row in await self._select(statement, *values)]

    async def totals(self, collection: str, asked: Totals) -> list[Total]:
        statement, values = totals_query(collection, asked)
        rows = await self._ask(self._counter, statement, values)
        return [total_of(tuple(row), asked) for row in rows]

    async def read_many(self, collection: str, keys: Sequence[str]) -> list[Found]:
        statement = _READ_MANY.format(table=collection, marks=", ".join("?" * len(keys)))
        return [Found(*row) for row in await self._select(statement, *keys)]

    async def remove(self, collection: str, key: str, version: int) -> bool:
        settled = _SETTLED.format(table=collection)
        statement = _REMOVE.format(table=collection, settled=settled)
        async with self._transaction() as writer:
            return bool(await writer.execute_fetchall(statement, (key, version)))

    async def remove_all(self, collection: str, versions: Mapping[str, int]) -> int:
        settled = _SETTLED.format(table=collection)
        statement = _REMOVE_ONE_OF_MANY.format(table=collection, settled=settled)
        async with self._transaction() as writer:
            return (await writer.executemany(statement, list(versions.items()))).rowcount

    async def forget(self, collection: str, before: str, limit: int) -> int:
        settled = _SETTLED.format(table=collection)
        statement = _FORGET.format(table=collection, settled=settled)
        async with self._transaction() as writer:
            return len(list(await writer.execute_fetchall(statement, (before, limit))))

    async def position(self, collection: str) -> int:
        [[position]] = await self._select(_POSITION.format(table=collection))
        return int(position)

    async def changed(self, collection: str, beyond: int, limit: int) -> list[FoundChange]:
        rows = await self._select(_CHANGED.format(table=collection), beyond, limit)
        return [FoundChange(*row) for row in rows]

    async def now(self) -> int:
        return 0  # without an overlap, nothing is told twice that this could spare

    @property
    def overlap(self) -> int:
        return 0

    async def due(self, collection: str, now: str, limit: int) -> list[Found]:
        rows = await self._select(_DUE.format(table=collection), now, limit)
        return [Found(*row) for row in rows]

    async def pending(self, stored_before: str, limit: int) -> list[FoundEntry]:
        return [FoundEntry(*row) for row in await self._select(_PENDING, stored_before, limit)]

    async def settle(self, collection: str, entries: Sequence[tuple[str, str]]) -> None:
        async with self._transaction() as writer:
            named = [(event_id, collection, key) for key, event_id in entries]
            await writer.executemany(_SETTLE, named)

    async def _connect(self) -> aiosqlite.Connection:
        # Autocommit: this module says itself where a transaction begins and ends.
        return await aiosqlite.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)

    async def _connect_reading(self) -> aiosqlite.Connection:
        connection = await self._connect()
        await connection.execute("PRAGMA query_only = ON")
        return connection

    async def _use_wal(self, connection: aiosqlite.Connection, deadline: Deadline) -> None:
        """Switching to WAL does not wait for a lock; another process may be opening it too."""
        while True:
            try:
                [[mode]] = await connection.execute_fetchall("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or deadline.expired:
                    raise
                await asyncio.sleep(0.01)
        if mode != "wal":
            message = f"{self.place} cannot be in WAL mode: put it on a local file system"
            raise ConfigError(message)
        await connection.execute("PRAGMA synchronous = FULL")

    async def _prepare(self, layouts: Sequence[Layout]) -> None:
        async with self._transaction() as writer:
            [[schema]] = await writer.execute_fetchall("PRAGMA user_version")
            if schema > SCHEMA:
                message = (
                    f"{self.place} has schema {schema}, this version knows {SCHEMA}: "
                    "install the newer version again"
                )
                raise ConfigError(message)
            for layout in layouts:
                await writer.execute(_TABLE.format(table=layout.collection))
                columns = await writer.execute_fetchall(f"PRAGMA table_info({layout.collection})")
                if "changed" not in [column[1] for column in columns]:
                    await writer.execute(_ADD_CHANGED.format(table=layout.collection))
                for statement in (_DUE_INDEX, _CHANGED_INDEX):
                    await writer.execute(statement.format(table=layout.collection))
                for fields in layout.indexes:
                    await writer.execute(
                        _FIELD_INDEX.format(
                            table=layout.collection,
                            name="_".join(fields),
                            columns=", ".join(map(column, fields)),
                        )
                    )
            for statement in (_OUTBOX, *_OUTBOX_INDEXES):
                await writer.execute(statement)
            await writer.execute(f"PRAGMA user_version = {SCHEMA}")

    async def _select(self, statement: str, *values: object) -> list[sqlite3.Row]:
        return await self._ask(self._reader, statement, values)

    async def _ask(
        self, connection: aiosqlite.Connection | None, statement: str, values: Sequence[object]
    ) -> list[sqlite3.Row]:
        with self._failing_plainly():
            return list(await self._opened(connection).execute_fetchall(statement, values))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """All of the body or nothing, whatever ends it; and no transaction stays open."""
        with self._failing_plainly():
            writer = self._opened(self._writer)
            async with self._writing:
                try:
                    await writer.execute("BEGIN IMMEDIATE")
                    yield writer
                    await writer.execute("COMMIT")
                except BaseException:
                    # Also if BEGIN or COMMIT itself was cancelled: the thread still runs it, then
                    # this. It fails only where there is no transaction any more.
                    with suppress(sqlite3.Error):
                        await writer.execute("ROLLBACK")
                    raise

    def _opened(self, connection: aiosqlite.Connection | None) -> aiosqlite.Connection:
        if connection is None:
            raise CatalogUnavailableError(f"{self.place} is not open")
        return connection

    @contextmanager
    def _failing_plainly(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            message = (
                f"{self.place} cannot be used: {exc}; check that the file and its directory can be "
                "written by this user, that the disk is not full, and that no program locks it"
            )
            raise CatalogUnavailableError(message) from exc


def _create(path: Path) -> None:
    """An empty file that only we may read; SQLite gives its companion files the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
