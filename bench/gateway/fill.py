"""Fills a catalog with images and usage, past the gateway and in bulk: one by one takes minutes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import islice
from typing import Any, Final, TypeVar

import pymongo
from bson.timestamp import Timestamp

from shared.catalog.open import catalog_at
from shared.catalog.records import (
    Failure,
    ImageRecord,
    PlacedImage,
    Progress,
    Record,
    UsageRecord,
    image_key,
)
from shared.catalog.store import sortable
from shared.deadline import Deadline
from shared.image.planning.shares import LayerShare
from shared.image.recipe import ImageConfig, PackOptions
from shared.models import utcnow
from shared.states import State

R = TypeVar("R", bound=Record)

SYSTEM: Final = "cluster"
QUEUED: Final = 100
"""Pulls under way, and as many that failed, beside the images."""
_LAYERS: Final = 8
_USERS: Final = 200
_AT_ONCE: Final = 1000


async def fill(url: str, images: int, usage: int) -> None:
    """Make the catalog at `url`, and put so many images and records of usage into it."""
    catalog = catalog_at(url, timeout=60.0)
    await catalog.open(Deadline.after(60))
    await catalog.close()
    made: tuple[Iterator[Record], ...] = (_images(images), _queue(), _usage(usage, images))
    store = _into_mongo if url.startswith("mongodb:") else _into_sqlite
    for records in made:
        while rows := list(islice(records, _AT_ONCE)):
            store(url, rows)


def reference(number: int) -> str:
    return f"registry.example.org/team{number % 40}/application-{number}:1.{number}"


def _images(count: int) -> Iterator[ImageRecord]:
    for number in range(count):
        yield _image(number, State.READY)


def _queue() -> Iterator[ImageRecord]:
    for number in range(QUEUED):
        progress = Progress(stage=State.PULLING, done=number << 20, total=1 << 30, rate=1e8)
        waiting = _image(10_000_000 + number, State.PULLING)
        yield waiting.but(current=None, image_id=None, progress=progress)
        failure = Failure(code="image_not_found", message="the registry has no such image")
        failed = _image(20_000_000 + number, State.FAILURE)
        yield failed.but(current=None, image_id=None, failure=failure)


def _usage(count: int, images: int) -> Iterator[UsageRecord]:
    now = utcnow()
    for number in range(count):
        last = now - timedelta(hours=number % 720)
        uid = 1000 + number % _USERS
        yield UsageRecord(
            key=f"{SYSTEM}/{number}",
            version=1,
            due_at=last,
            system=SYSTEM,
            hour=last.strftime("%Y-%m-%dT%H"),
            uid=uid,
            user=f"user{uid}",
            reference=reference(number % images),
            image_id=f"{number % images:064x}",
            lookups=number % 50,
            last=last,
        )


def _image(number: int, state: State) -> ImageRecord:
    now = utcnow()
    digests = tuple(f"sha256:{number * 100 + layer:064x}" for layer in range(_LAYERS))
    current = PlacedImage(
        image_id=f"{number:064x}",
        reference_digest=digests[0],
        manifest_digest=digests[0],
        config_digest=digests[1],
        pack=PackOptions(),
        max_dead_share=0.15,
        content_digest=f"{number:064x}",
        size=500 << 20,
        inodes=40_000,
        config=ImageConfig(
            env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8"),
            cmd=("/bin/bash",),
            workdir="/srv",
            labels={"org.opencontainers.image.title": f"application {number}"},
        ),
        layers=digests,
        shares=tuple(
            LayerShare(digest=digest, pack=digest[7:], size=60 << 20, dead=0, left_out=0, pieces=1)
            for digest in digests
        ),
        ready_at=now,
    )
    name = reference(number)
    return ImageRecord(
        key=image_key(SYSTEM, "docker", name),
        version=1,
        system=SYSTEM,
        reference=name,
        state=state,
        attempt=1,
        tries=1,
        pull_id=f"{number:032x}",
        requested_at=now,
        requested_by="ada",
        waiting_since=now,
        last_pull=now,
        pack=PackOptions(),
        max_dead_share=0.15,
        image_id=current.image_id,
        current=current,
    )


def _into_sqlite(url: str, records: list[Record]) -> None:
    rows = [
        (each.key, each.version, each.due_at and sortable(each.due_at), each.model_dump_json())
        for each in records
    ]
    table = records[0].collection
    with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as database, database:
        database.executemany(
            f"INSERT INTO {table} (key, version, due_at, document) VALUES (?, ?, ?, ?)",  # noqa: S608
            rows,
        )


def _into_mongo(url: str, records: list[Record]) -> None:
    kind = type(records[0])
    fields = {field for index in kind.indexes for field in index}
    documents: list[dict[str, Any]] = []
    for each in records:
        document: dict[str, Any] = {
            "_id": each.key,
            "version": each.version,
            "document": each.model_dump_json(),
            "by": {name: _text(getattr(each, name)) for name in fields},
            "changed": Timestamp(0, 0),
            "outbox": [],
        }
        if each.due_at is not None:
            document["due_at"] = sortable(each.due_at)
        documents.append(document)
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        client.get_default_database()[kind.collection].insert_many(documents)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
