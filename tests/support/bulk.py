"""Many records at once, as the catalog stores each: for tests of what is still quick with them."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pymongo

from shared.catalog.records import Record
from shared.catalog.store import sortable


def store_many(url: str, records: Sequence[Record]) -> None:
    """Into an open catalog that has none of them yet. Blocks."""
    if url.startswith("mongodb:"):
        collection = records[0].collection
        with pymongo.MongoClient[dict[str, Any]](url) as client:
            client.get_default_database()[collection].insert_many(map(_document, records))
        return
    rows = [(r.key, r.version, _due(r), r.model_dump_json()) for r in records]
    insert = f"INSERT INTO {records[0].collection} (key, version, due_at, document)"
    with closing(sqlite3.connect(urlsplit(url).path)) as connection, connection:
        connection.executemany(f"{insert} VALUES (?, ?, ?, ?)", rows)


def _document(record: Record) -> dict[str, Any]:
    text = record.model_dump_json()
    values = json.loads(text)
    fields = {field for index in record.indexes for field in index}
    due = _due(record)
    return {
        "_id": record.key,
        "version": record.version,
        "document": text,
        "by": {field: _text(values[field]) for field in fields},
        "outbox": [],
        **({} if due is None else {"due_at": due}),
    }


def _due(record: Record) -> str | None:
    return None if record.due_at is None else sortable(record.due_at)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(int(value)) if isinstance(value, bool) else str(value)
