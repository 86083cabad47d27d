"""Records, events and steps for tests of the catalog."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pymongo

from shared.catalog.interface import Catalog, Change, Step
from shared.catalog.open import catalog_at
from shared.catalog.records import LoginRecord, NodeRecord, Record
from shared.deadline import Deadline
from shared.events import Event, JobReleased
from shared.models import utcnow

R = TypeVar("R", bound=Record)


@asynccontextmanager
async def opened(url: str, *, timeout: float = 10.0) -> AsyncIterator[Catalog]:
    catalog = catalog_at(url, timeout=timeout)
    await catalog.open(Deadline.after(10))
    try:
        yield catalog
    finally:
        await catalog.close()


def soon() -> Deadline:
    return Deadline.after(10)


def later() -> datetime:
    """After everything that a test stores."""
    return utcnow() + timedelta(minutes=1)


def node_record(key: str, **fields: object) -> NodeRecord:
    return NodeRecord.model_validate(
        {
            "key": key,
            "node": "nid00001",
            "system": "alps",
            "kernel": "6.1.0",
            "mounter": "kernel",
            "codecs": ("zstd",),
            "mounts": 0,
            "seen_at": utcnow(),
            **fields,
        }
    )


def login_record(uid: int) -> LoginRecord:
    return LoginRecord(
        key=f"{uid}/registry.example",
        uid=uid,
        registry="registry.example",
        username="me",
        sealed="",
        expires_at=later(),
    )


def released(job_id: str = "1") -> JobReleased:
    return JobReleased(correlation_id=f"job-{job_id}", node="nid00001", job_id=job_id)


def count_up(key: str, *events: Event) -> Step[NodeRecord]:
    """A step that makes the record, or adds one to its `mounts`."""

    def step(before: NodeRecord | None) -> Change[NodeRecord]:
        if before is None:
            return Change(node_record(key, mounts=1), events)
        return Change(before.but(mounts=before.mounts + 1), events)

    return step


def put(record: R, *events: Event) -> Step[R]:
    return lambda _: Change(record, events)


class BackDoor:
    """Changes stored node records as no catalog would."""

    def __init__(self, url: str) -> None:
        self._url = url

    def overtake(self, key: str) -> None:
        """Let it look as if somebody else had changed the record just now."""
        self._store(key, self._document(key), 1)

    def copy(self, key: str, other: str) -> None:
        """Let it look as if somebody else had just made the other record, like the first."""
        document = json.dumps(json.loads(self._document(key)) | {"key": other})
        if self._url.startswith("mongodb:"):
            with self._client() as client:
                new = {"_id": other, "document": document, "version": 1, "by": {}, "outbox": []}
                client.get_default_database()["nodes"].insert_one(new)
            return
        insert = "INSERT INTO nodes (key, document, version) VALUES (?, ?, 1)"
        with closing(self._connect()) as connection:
            connection.execute(insert, (other, document))

    def rewrite(self, key: str, **fields: object) -> None:
        document = json.loads(self._document(key)) | fields
        self._store(key, json.dumps(document), 0)

    def _document(self, key: str) -> str:
        if self._url.startswith("mongodb:"):
            with self._client() as client:
                found = client.get_default_database()["nodes"].find_one({"_id": key})
                assert found is not None
                return str(found["document"])
        with closing(self._connect()) as connection:
            select = "SELECT document FROM nodes WHERE key = ?"
            [document] = connection.execute(select, (key,)).fetchone()
            return str(document)

    def _store(self, key: str, document: str, versions: int) -> None:
        if self._url.startswith("mongodb:"):
            with self._client() as client:
                client.get_default_database()["nodes"].update_one(
                    {"_id": key}, {"$set": {"document": document}, "$inc": {"version": versions}}
                )
            return
        update = "UPDATE nodes SET document = ?, version = version + ? WHERE key = ?"
        with closing(self._connect()) as connection:
            connection.execute(update, (document, versions, key))

    def _client(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(self._url)

    def _connect(self) -> sqlite3.Connection:
        path = self._url.removeprefix("sqlite://")
        return sqlite3.connect(path, isolation_level=None, timeout=5)
