"""The catalog in one SQLite file: for one machine, with as many processes on it as you like.

WAL with synchronous=FULL: what was acknowledged survives a killed process and a power cut. One
connection writes, one transaction at a time; another reads meanwhile. Each connection has a
thread of its own (aiosqlite), so the event loop never waits for the disk.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiosqlite

from shared.catalog.store import Found, FoundEntry, Layout, OutboxEntry, Row, Wanted
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, ConfigError

SCHEMA = 1
LOCK_SECONDS = 5.0
"""How long a write waits for another process's transaction."""

_TABLE = """
    CREATE TABLE IF NOT EXISTS {table} (
        key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, due_at TEXT, document TEXT NOT NULL
    )"""
_DUE_INDEX = "CREATE INDEX IF NOT EXISTS {table}_due ON {table} (due_at) WHERE due_at IS NOT NULL"
_FIELD_INDEX = "CREATE INDEX IF NOT EXISTS {table}_{name} ON {table} ({columns})"
_OUTBOX = """
    CREATE TABLE IF NOT EXISTS outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, collection TEXT NOT NULL,
        key TEXT NOT NULL, stored_at TEXT NOT NULL, body TEXT NOT NULL
    )"""
_OUTBOX_INDEXES = (
    "CREATE INDEX IF NOT EXISTS outbox_stored ON outbox (stored_at, sequence)",
    "CREATE INDEX IF NOT EXISTS outbox_id ON outbox (id)",
)

_READ = "SELECT key, document FROM {table} WHERE key = ?"
_INSERT = """
    INSERT INTO {table} (document, due_at, version, key) VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO NOTHING RETURNING 1"""
_UPDATE = """
    UPDATE {table} SET document = ?, due_at = ?, version = ? WHERE key = ? AND version = ?
    RETURNING 1"""
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
                self._reader = await self._connect()
                await self._reader.execute("PRAGMA query_only = ON")
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        connections = [each for each in (self._reader, self._writer) if each is not None]
        self._reader = self._writer = None
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
        values: tuple[object, ...] = (row.document, row.due_at, row.version, row.key)
        if expected is None:
            statement = _INSERT.format(table=collection)
        else:
            statement = _UPDATE.format(table=collection)
            values += (expected,)
        async with self._transaction() as writer:
            if not await writer.execute_fetchall(statement, values):
                return False
            if entries:
                posted = [(e.id, collection, row.key, e.stored_at, e.body) for e in entries]
                await writer.executemany(_POST, posted)
        return True

    async def find(
        self, collection: str, wanted: Wanted, after: str | None, limit: int
    ) -> list[Found]:
        condition, values = _condition(wanted)
        if after is not None:
            condition, values = f"{condition} AND key > ?", [*values, after]
        statement = _FIND.format(table=collection, condition=condition)
        return [Found(*row) for row in await self._select(statement, *values, limit)]

    async def due(self, collection: str, now: str, limit: int) -> list[Found]:
        rows = await self._select(_DUE.format(table=collection), now, limit)
        return [Found(*row) for row in rows]

    async def pending(self, stored_before: str, limit: int) -> list[FoundEntry]:
        return [FoundEntry(*row) for row in await self._select(_PENDING, stored_before, limit)]

    async def settle(self, collection: str, key: str, event_id: str) -> None:
        async with self._transaction() as writer:
            await writer.execute(_SETTLE, (event_id, collection, key))

    async def _connect(self) -> aiosqlite.Connection:
        # Autocommit: this module says itself where a transaction begins and ends.
        return await aiosqlite.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)

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
                for statement in (_TABLE, _DUE_INDEX):
                    await writer.execute(statement.format(table=layout.collection))
                for fields in layout.indexes:
                    columns = ", ".join(map(_column, fields))
                    names = {"table": layout.collection, "name": "_".join(fields)}
                    await writer.execute(_FIELD_INDEX.format(**names, columns=columns))
            for statement in (_OUTBOX, *_OUTBOX_INDEXES):
                await writer.execute(statement)
            await writer.execute(f"PRAGMA user_version = {SCHEMA}")

    async def _select(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._failing_plainly():
            return list(await self._opened(self._reader).execute_fetchall(statement, values))

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


def _column(field: str) -> str:
    """The expression that index and query must spell alike, or the index is not used."""
    return f"json_extract(document, '$.{field}')"


def _condition(wanted: Wanted) -> tuple[str, list[str]]:
    terms = ["TRUE"]
    values: list[str] = []
    for field, options in wanted.items():
        terms.append(f"{_column(field)} IN ({', '.join('?' * len(options))})")
        values += options
    return " AND ".join(terms), values
