"""The catalog in MongoDB: for several machines, a replica set.

A record is one document, and its outbox is an array in it, so one update stores a change and its
events together. `$set` and `$push` never replace the whole document: an event that is settled by
`$pull` at the same moment neither comes back nor takes others with it. A write is acknowledged
when a majority has it in its journal, and only such writes are ever read.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter

import pymongo
from bson.errors import BSONError
from bson.timestamp import Timestamp
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.uri_parser import parse_uri

from shared.catalog.mongo_queries import (
    condition,
    newest_condition,
    total_of,
    totals_pipeline,
)
from shared.catalog.mongo_writes import (
    CHANGED,
    SETTLED,
    STORED,
    Document,
    new_document,
    remove_many,
    settle_many,
    update_of,
    write_many,
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
DATABASE = "dray"
"""Where the URL names no database."""

OVERLAP_SECONDS = 10
_TEXT = {"document": True}
_AUTHENTICATION_CODES = frozenset({13, 18})  # Unauthorized, AuthenticationFailed


class MongoStore:
    """A `Store` in one database of a replica set."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._hosts, self._database = _parsed(url)
        self._client: pymongo.AsyncMongoClient[Document] | None = None
        self._layouts: tuple[Layout, ...] = ()

    @property
    def place(self) -> str:
        return f"the catalog's MongoDB at {self._hosts}"

    async def open(self, layouts: Sequence[Layout], deadline: Deadline) -> None:
        self._layouts = tuple(layouts)
        self._client = self._make_client()
        try:
            async with self._failing_plainly():
                await self._prepare(await self._client.admin.command("hello"))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ping(self) -> None:
        async with self._failing_plainly():
            # Not only "is a process there": it must know of a primary that can be read.
            await self._collection("meta").find_one({"_id": "schema"})

    async def read(self, collection: str, key: str) -> Found | None:
        async with self._failing_plainly():
            document = await self._collection(collection).find_one({"_id": key}, _TEXT)
        return None if document is None else _found(document)

    async def write(
        self, collection: str, row: Row, expected: int | None, entries: Sequence[OutboxEntry]
    ) -> bool:
        async with self._failing_plainly():
            if expected is None:
                return await self._insert(collection, row, entries)
            result = await self._collection(collection).update_one(
                {"_id": row.key, "version": expected}, update_of(row, entries)
            )
            return result.matched_count == 1

    async def write_all(self, collection: str, writes: Sequence[Write]) -> set[str]:
        async with self._failing_plainly():
            return await write_many(self._collection(collection), writes)

    async def find(
        self, collection: str, wanted: Wanted, after: str | None, limit: int
    ) -> list[Found]:
        wants = condition(wanted)
        if after is not None:
            wants["_id"] = {"$gt": after}
        async with self._failing_plainly():
            cursor = self._collection(collection).find(wants, _TEXT)
            return [_found(each) async for each in cursor.sort("_id").limit(limit)]

    async def newest(
        self, collection: str, wanted: Wanted, field: str, beyond: Place | None, limit: int
    ) -> list[Found]:
        async with self._failing_plainly():
            cursor = self._collection(collection).find(
                newest_condition(wanted, field, beyond), _TEXT
            )
            cursor = cursor.sort([(f"by.{field}", -1), ("_id", -1)]).limit(limit)
            return [_found(each) async for each in cursor]

    async def totals(self, collection: str, asked: Totals) -> list[Total]:
        async with self._failing_plainly():
            cursor = await self._collection(collection).aggregate(totals_pipeline(asked))
            return [total_of(each, asked) async for each in cursor]

    async def read_many(self, collection: str, keys: Sequence[str]) -> list[Found]:
        async with self._failing_plainly():
            cursor = self._collection(collection).find({"_id": {"$in": list(keys)}}, _TEXT)
            return [_found(each) async for each in cursor]

    async def remove(self, collection: str, key: str, version: int) -> bool:
        async with self._failing_plainly():
            condition = {"_id": key, "version": version, **SETTLED}
            result = await self._collection(collection).delete_one(condition)
            return result.deleted_count == 1

    async def remove_all(self, collection: str, versions: Mapping[str, int]) -> int:
        async with self._failing_plainly():
            return await remove_many(self._collection(collection), versions)

    async def forget(self, collection: str, before: str, limit: int) -> int:
        old: Document = {"due_at": {"$lte": before}, **SETTLED}
        async with self._failing_plainly():
            cursor = self._collection(collection).find(old, {"_id": True})
            keys = [each["_id"] async for each in cursor.sort("due_at", 1).limit(limit)]
            # Looked at once more: what was used meanwhile is not old any longer.
            result = await self._collection(collection).delete_many({"_id": {"$in": keys}, **old})
            return result.deleted_count

    async def position(self, collection: str) -> int:
        async with self._failing_plainly():
            cursor = self._collection(collection).find({}, {CHANGED: True}).sort(CHANGED, -1)
            async for document in cursor.limit(1):
                return _position(document)
        return 0

    async def changed(self, collection: str, beyond: int, limit: int) -> list[FoundChange]:
        seconds, ordinal = divmod(max(0, beyond), 1 << 32)
        async with self._failing_plainly():
            cursor = self._collection(collection).find(
                {CHANGED: {"$gt": Timestamp(seconds, ordinal)}}, {"version": True, CHANGED: True}
            )
            return [
                FoundChange(each["_id"], each["version"], _position(each))
                async for each in cursor.sort(CHANGED, 1).limit(limit)
            ]

    async def now(self) -> int:
        async with self._failing_plainly():
            hello = await self._opened().admin.command("hello")
        return _as_position(hello.get("operationTime"))

    @property
    def overlap(self) -> int:
        # The server stamps a change before a majority has it, and only then it can be read.
        return OVERLAP_SECONDS << 32

    async def due(self, collection: str, now: str, limit: int) -> list[Found]:
        async with self._failing_plainly():
            cursor = self._collection(collection).find({"due_at": {"$lte": now}}, _TEXT)
            cursor = cursor.sort([("due_at", 1), ("_id", 1)]).limit(limit)
            return [_found(each) async for each in cursor]

    async def pending(self, stored_before: str, limit: int) -> list[FoundEntry]:
        # Sorting by an array sorts by its smallest element, so the first `limit` documents of
        # each collection hold the `limit` oldest entries of all.
        entries: list[tuple[str, FoundEntry]] = []
        async with self._failing_plainly():
            for layout in self._layouts:
                name = layout.collection
                cursor = self._collection(name).find(
                    {STORED: {"$lt": stored_before}}, {"outbox": True}
                )
                async for document in cursor.sort(STORED, 1).limit(limit):
                    entries += [
                        (entry["stored_at"], FoundEntry(name, document["_id"], entry["body"]))
                        for entry in document["outbox"]
                        if entry["stored_at"] < stored_before
                    ]
        entries.sort(key=itemgetter(0))
        return [entry for _, entry in entries[:limit]]

    async def settle(self, collection: str, entries: Sequence[tuple[str, str]]) -> None:
        async with self._failing_plainly():
            await settle_many(self._collection(collection), entries)

    async def _insert(self, collection: str, row: Row, entries: Sequence[OutboxEntry]) -> bool:
        try:
            await self._collection(collection).insert_one(new_document(row, entries))
        except DuplicateKeyError:
            return False
        return True

    async def _prepare(self, hello: Document) -> None:
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            message = f"{self.place} is no replica set: start mongod with --replSet and initiate it"
            raise ConfigError(message)
        # $max: an older version that opens a newer one's database sees so, and changes nothing.
        meta = self._collection("meta")
        schema = await meta.find_one_and_update(
            {"_id": "schema"},
            {"$max": {"schema": SCHEMA}},
            upsert=True,
            return_document=pymongo.ReturnDocument.AFTER,
        )
        assert schema is not None  # it is an upsert
        if schema["schema"] > SCHEMA:
            message = (
                f"{self.place} has schema {schema['schema']}, this version knows {SCHEMA}: "
                "install the newer version again"
            )
            raise ConfigError(message)
        for layout in self._layouts:
            collection = self._collection(layout.collection)
            for fields in layout.indexes:
                # With the key, since that is the order in which equals are wanted.
                await collection.create_index(
                    [*((f"by.{field}", 1) for field in fields), ("_id", 1)]
                )
            await collection.create_index([(CHANGED, 1)])
            # Only what is due some day, or has something to publish, is in these.
            for keys, field in ((("due_at", "_id"), "due_at"), ((STORED,), STORED)):
                await collection.create_index(
                    [(key, 1) for key in keys],
                    partialFilterExpression={field: {"$exists": True}},
                )

    def _make_client(self) -> pymongo.AsyncMongoClient[Document]:
        # Our settings stand above the URL's: the catalog is only as true as its write concern.
        # The driver's own limits end a little before ours, because its errors say more.
        milliseconds = int(self._timeout * 800)
        return pymongo.AsyncMongoClient(
            self._url,
            appname="dray",
            w="majority",
            journal=True,
            readConcernLevel="majority",
            readPreference="primary",
            retryWrites=True,
            retryReads=True,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
            waitQueueTimeoutMS=milliseconds,
            wTimeoutMS=milliseconds,
        )

    def _collection(self, name: str) -> AsyncCollection[Document]:
        return self._opened()[self._database][name]

    def _opened(self) -> pymongo.AsyncMongoClient[Document]:
        if self._client is None:
            raise CatalogUnavailableError(f"{self.place} is not open")
        return self._client

    @asynccontextmanager
    async def _failing_plainly(self) -> AsyncIterator[None]:
        try:
            yield
        except OperationFailure as exc:
            if exc.code not in _AUTHENTICATION_CODES:
                raise self._unavailable(exc, "see mongod's log") from exc
            advice = "check the user, the password and authSource in catalog.url"
            raise self._unavailable(exc, advice) from exc
        except (PyMongoError, BSONError) as exc:
            advice = "check that mongod runs there and that this machine can reach it"
            raise self._unavailable(exc, advice) from exc

    def _unavailable(self, exc: Exception, advice: str) -> CatalogUnavailableError:
        # The driver appends its settings and its whole view of the cluster.
        reason = str(exc).partition(" (configured timeouts")[0].partition(", full error")[0]
        return CatalogUnavailableError(f"{self.place} cannot be used: {reason[:300]}; {advice}")


def _parsed(url: str) -> tuple[str, str]:
    """The hosts and the database that a URL names."""
    try:
        parts = parse_uri(url)
    except (InvalidURI, ConfigurationError, ValueError):
        # Not the driver's words: they may quote a password that was not escaped.
        message = (
            "catalog.url is not a MongoDB URL: write mongodb://user:password@host1,host2/database"
            "?replicaSet=name, with everything but letters and digits in the password as %XX"
        )
        raise ConfigError(message) from None
    hosts = ",".join(f"{host}:{port}" for host, port in parts["nodelist"])
    return hosts, parts["database"] or DATABASE


def _position(document: Document) -> int:
    return _as_position(document.get(CHANGED))  # none in what an older version wrote


def _as_position(stamp: Timestamp | None) -> int:
    return 0 if stamp is None else (stamp.time << 32) + stamp.inc


def _found(document: Document) -> Found:
    return Found(document["_id"], document["document"])
