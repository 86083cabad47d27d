"""What a database must do to hold the catalog: the seam below which SQLite and MongoDB differ.

A store sees rows, not records: a key, a version, the record as JSON text, and copies of the few
fields that it must compare or index. The text is the same in every database and is read by
pydantic alone, so no database's own idea of dates, numbers or field names can change a record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from shared.catalog.totals import Place, Total, Totals, Wanted
from shared.deadline import Deadline


@dataclass(frozen=True, slots=True)
class Layout:
    """One collection: its name, and the fields of each of its indexes."""

    collection: str
    indexes: tuple[tuple[str, ...], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(field for index in self.indexes for field in index))


@dataclass(frozen=True, slots=True)
class Row:
    """One record, ready to be stored."""

    key: str
    version: int
    due_at: str | None
    fields: Mapping[str, str | None]
    """Copies of the indexed fields, for a database that cannot index inside of JSON."""
    document: str


@dataclass(frozen=True, slots=True)
class Found:
    """One record as it was found."""

    key: str
    document: str


@dataclass(frozen=True, slots=True)
class FoundChange:
    """That a record has changed, and where this stands in the order of changes."""

    key: str
    version: int
    position: int


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One event, ready to be stored with the change that causes it."""

    id: str
    stored_at: str
    body: str


@dataclass(frozen=True, slots=True)
class Write:
    """One of many rows that are stored at once."""

    row: Row
    expected: int | None
    """The version that the stored row must have; None: there must be none."""
    entries: Sequence[OutboxEntry] = ()


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """One event that the outbox still holds."""

    collection: str
    key: str
    body: str


class Store(Protocol):
    """A database. Each method raises CatalogUnavailableError where the database fails, and bounds
    its own waits: all but `open` run to their end even if their caller has given up."""

    @property
    def place(self) -> str:
        """What the database is and where, for messages; never with a password."""

    async def open(self, layouts: Sequence[Layout], deadline: Deadline) -> None: ...

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def read(self, collection: str, key: str) -> Found | None: ...

    async def write(
        self, collection: str, row: Row, expected: int | None, entries: Sequence[OutboxEntry]
    ) -> bool:
        """Store row and entries as one, if the stored version is `expected` (None: no row yet).

        True only once it is durable.
        """

    async def write_all(self, collection: str, writes: Sequence[Write]) -> set[str]:
        """What `write` does, for each; the keys of those whose stored version was another."""

    async def find(
        self, collection: str, wanted: Wanted, after: str | None, limit: int
    ) -> list[Found]: ...

    async def newest(
        self, collection: str, wanted: Wanted, field: str, beyond: Place | None, limit: int
    ) -> list[Found]: ...

    async def totals(self, collection: str, asked: Totals) -> list[Total]: ...

    async def read_many(self, collection: str, keys: Sequence[str]) -> list[Found]: ...

    async def due(self, collection: str, now: str, limit: int) -> list[Found]: ...

    async def remove(self, collection: str, key: str, version: int) -> bool: ...

    async def remove_all(self, collection: str, versions: Mapping[str, int]) -> int: ...

    async def forget(self, collection: str, before: str, limit: int) -> int: ...

    async def position(self, collection: str) -> int:
        """Where the latest change stands."""

    async def changed(self, collection: str, beyond: int, limit: int) -> list[FoundChange]:
        """What changed beyond that position and has not changed since, in the order of changes."""

    async def now(self) -> int:
        """A position that every change to come stands beyond, whatever has changed of late."""

    @property
    def overlap(self) -> int:
        """How far behind the latest position a change may still become visible."""

    async def pending(self, stored_before: str, limit: int) -> list[FoundEntry]: ...

    async def settle(self, collection: str, entries: Sequence[tuple[str, str]]) -> None:
        """Remove from the outbox what these keys and ids of events name."""


def sortable(instant: datetime) -> str:
    """UTC as text of one width: its order is the order in time, and it keeps the microseconds."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")
