"""The catalog's documents about how things stand: figures by the minute, and room for images."""

from typing import Final, Literal

from pydantic import Field

from shared.catalog.record import Record
from shared.models import Bytes, Instant, SystemName

MOST_PARTS: Final = 256
"""Gateways, and starts of them, that may have counted within one minute."""


class MinuteRecord(Record):
    """Figures of the minute that ended at `key`, as 2026-11-21T09:41, in UTC; `due_at` as well.

    How things stood at its end, whoever looked first. And what happened within it: each gateway
    has a part of its own, by an id of this start of it, and puts there what it alone has counted.
    So saying it twice adds nothing, and the sum is the same whoever comes last.
    """

    collection = "history"

    stood: dict[str, float] = Field(default_factory=dict)
    counted: dict[str, dict[str, int]] = Field(default_factory=dict)


class StorageRecord(Record):
    """One system's image directory, or one pack store, as it was told last.

    Free space is told more often than anybody counts files; `due_at` asks to forget what nobody
    tells of any more.
    """

    collection = "storage"

    kind: Literal["directory", "store"]
    system: SystemName | None = None
    items: Bytes
    """Images, or packs."""
    bytes: Bytes
    counted_at: Instant
    free_bytes: Bytes
    reserve_bytes: Bytes = 0
    at: Instant
    """When its free space was told."""


def storage_key(kind: Literal["directory", "store"], name: str) -> str:
    return f"{kind}/{name}"
