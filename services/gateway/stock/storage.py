"""Where the bytes are, as distributors and converters told last: kept in the catalog.

The newest word wins, by the time at which it was said, and none is taken for newer than it can be.
What nobody tells of for days is forgotten.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from shared.api import ImageDirectoryView, StoreView
from shared.catalog.interface import Catalog, Change
from shared.catalog.standing_records import StorageRecord, storage_key
from shared.deadline import Deadline
from shared.events import StorageReported
from shared.logging import get_logger
from shared.models import utcnow
from shared.settings.site import SystemSettings

KEEP: Final = timedelta(days=7)
FRESH_SECONDS: Final = 5.0
MOST_PLACES: Final = 500
MOST_STORES: Final = 100
"""Nothing says which stores a site has: more than these are a mistake of whoever tells of them."""
_BATCH: Final = 100

log = get_logger(__name__)

Kind = Literal["directory", "store"]


@dataclass(frozen=True, slots=True)
class LowDirectory:
    """An image directory with less room than its reserve: pulls to it fail."""

    system: str
    free_bytes: int
    reserve_bytes: int


class StorageBook:
    """What is known of image directories and pack stores, at every gateway the same."""

    def __init__(
        self, catalog: Catalog, systems: Mapping[str, SystemSettings], timeout: float
    ) -> None:
        self._storage = catalog.storage
        self._systems = systems
        self._timeout = timeout
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._known: list[StorageRecord] = []

    async def on_reported(self, event: StorageReported) -> None:
        if event.system is not None and event.system not in self._systems:
            return
        said_at = min(event.time, utcnow())
        kind: Kind = "store" if event.system is None else "directory"
        key = storage_key(kind, event.system or event.store or "")
        if kind == "store" and await self._is_one_too_many(key):
            log.warning("store_not_noted", store=event.store, stores=MOST_STORES)
            return

        def step(found: StorageRecord | None) -> Change[StorageRecord] | None:
            after = _told(found, key, kind, event, said_at)
            return None if after is None else Change(after)

        await self._storage.change(key, step, Deadline.after(self._timeout))

    async def _is_one_too_many(self, key: str) -> bool:
        known = [each.key for each in await self._records() if each.kind == "store"]
        return len(known) >= MOST_STORES and key not in known

    async def stores(self) -> tuple[StoreView, ...]:
        return tuple(
            StoreView(packs=each.items, bytes=each.bytes, free_bytes=each.free_bytes, at=each.at)
            for each in await self._records()
            if each.kind == "store"
        )

    async def directories(self) -> tuple[ImageDirectoryView, ...]:
        return tuple(
            ImageDirectoryView(
                system=each.system,
                images=each.items,
                bytes=each.bytes,
                free_bytes=each.free_bytes,
                reserve_bytes=each.reserve_bytes,
                at=each.at,
            )
            for each in await self._records()
            if each.system in self._systems and each.system is not None
        )

    async def low(self) -> tuple[LowDirectory, ...]:
        """The image directories in which pulls fail for want of room."""
        return tuple(
            LowDirectory(each.system, each.free_bytes, each.reserve_bytes)
            for each in await self.directories()
            if each.free_bytes < each.reserve_bytes
        )

    async def forget(self) -> None:
        await self._storage.forget(utcnow() - KEEP, _BATCH)

    async def _records(self) -> list[StorageRecord]:
        """All of them, at most some seconds old."""
        async with self._reading:
            now = time.monotonic()
            if now - self._read_at >= FRESH_SECONDS:
                self._known = await self._storage.find({}, limit=MOST_PLACES)
                self._read_at = now
            return self._known


def _told(
    found: StorageRecord | None, key: str, kind: Kind, event: StorageReported, at: datetime
) -> StorageRecord | None:
    """The record after this word; None: it is no news, or there is nothing to add it to."""
    counted = event.counted
    if found is None:
        if counted is None:
            return None
        found = StorageRecord(
            key=key,
            kind=kind,
            system=event.system,
            items=counted.items,
            bytes=counted.bytes,
            counted_at=at,
            free_bytes=event.free_bytes,
            reserve_bytes=event.reserve_bytes,
            at=at,
        )
        return found.but(due_at=at)
    after = found
    if counted is not None and at > found.counted_at:
        after = after.but(items=counted.items, bytes=counted.bytes, counted_at=at)
    if at > found.at:
        room = {"free_bytes": event.free_bytes, "reserve_bytes": event.reserve_bytes}
        after = after.but(**room, at=at, due_at=at)
    return None if after is found else after
