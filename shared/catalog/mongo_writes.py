"""What the MongoDB catalog writes: one document, and many for little more than the price of one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson.timestamp import Timestamp
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from shared.catalog.store import OutboxEntry, Row, Write
from shared.events import new_id

Document = dict[str, Any]
STORED: Final = "outbox.stored_at"
CHANGED: Final = "changed"
SETTLED: Final[Document] = {STORED: {"$exists": False}}
_TOUCHED: Final = "batches"
_REMEMBERED: Final = 8
"""Of a document, so many of the last batches that wrote it: none is that slow to ask."""
_DUPLICATE_KEY: Final = 11000


def new_document(row: Row, entries: Sequence[OutboxEntry]) -> Document:
    document = {"_id": row.key, **_values(row), "outbox": _outbox(entries)}
    document[CHANGED] = Timestamp(0, 0)  # the server puts its own time there
    return document


def update_of(row: Row, entries: Sequence[OutboxEntry]) -> Document:
    update: Document = {
        "$set": _values(row),
        "$currentDate": {CHANGED: {"$type": "timestamp"}},
    }
    if row.due_at is None:
        update["$unset"] = {"due_at": ""}
    if entries:
        update["$push"] = {"outbox": {"$each": _outbox(entries)}}
    return update


async def write_many(collection: AsyncCollection[Document], writes: Sequence[Write]) -> set[str]:
    """The keys of those that were not written, since others had changed them."""
    batch = new_id()
    new = [each for each in writes if each.expected is None]
    old = [each for each in writes if each.expected is not None]
    requests: list[InsertOne[Document] | UpdateOne] = [
        InsertOne(new_document(each.row, each.entries)) for each in new
    ]
    requests += [_marked(each, batch) for each in old]
    overtaken: set[str] = set()
    try:
        done = dict((await collection.bulk_write(requests, ordered=False)).bulk_api_result)
    except BulkWriteError as exc:
        done = dict(exc.details or {})
        failed = done["writeErrors"]
        if done["writeConcernErrors"] or any(
            each["code"] != _DUPLICATE_KEY or each["index"] >= len(new) for each in failed
        ):
            raise
        overtaken = {new[each["index"]].row.key for each in failed}
    if done["nMatched"] < len(old):
        # How many found nothing to update is told; which ones, their marks tell.
        keys = {each.row.key for each in old}
        cursor = collection.find({"_id": {"$in": list(keys)}, _TOUCHED: batch}, {"_id": True})
        overtaken |= keys - {each["_id"] async for each in cursor}
    return overtaken


async def settle_many(
    collection: AsyncCollection[Document], entries: Sequence[tuple[str, str]]
) -> None:
    requests = [
        UpdateOne({"_id": key, "outbox.id": event_id}, {"$pull": {"outbox": {"id": event_id}}})
        for key, event_id in entries
    ]
    await collection.bulk_write(requests, ordered=False)


async def remove_many(collection: AsyncCollection[Document], versions: Mapping[str, int]) -> int:
    requests = [
        DeleteOne({"_id": key, "version": version, **SETTLED}) for key, version in versions.items()
    ]
    return (await collection.bulk_write(requests, ordered=False)).deleted_count


def _marked(write: Write, batch: str) -> UpdateOne:
    update = update_of(write.row, write.entries)
    marks = {_TOUCHED: {"$each": [batch], "$slice": -_REMEMBERED}}
    update["$push"] = {**update.get("$push", {}), **marks}
    return UpdateOne({"_id": write.row.key, "version": write.expected}, update)


def _values(row: Row) -> Document:
    values = {"version": row.version, "document": row.document, "by": dict(row.fields)}
    return values if row.due_at is None else {**values, "due_at": row.due_at}


def _outbox(entries: Sequence[OutboxEntry]) -> list[Document]:
    return [{"id": e.id, "stored_at": e.stored_at, "body": e.body} for e in entries]
