"""What the gateway may ask of the catalog, whichever database holds it.

Every change is a compare-and-set on the document's version, and the events that it causes are
stored with it, in the same document or transaction (the outbox). So a crash between write and
publish loses nothing: what was not settled is published by whoever comes next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from shared.catalog.records import (
    ImageRecord,
    JobRecord,
    LoginRecord,
    NodeRecord,
    ReadersRecord,
    Record,
    StagingRecord,
    UsageRecord,
)
from shared.catalog.standing_records import MinuteRecord, StorageRecord
from shared.catalog.totals import Place, Total, Totals
from shared.deadline import Deadline
from shared.events import AnyEvent, Event

R = TypeVar("R", bound=Record)
Part = TypeVar("Part", bound=BaseModel)

Where = Mapping[str, str | Sequence[str] | None]
"""Top-level fields and the value (None: none), or the list of values, that each may have."""


@dataclass(frozen=True, slots=True)
class Change(Generic[R]):
    """What a step wants: the document as it should be, and the events that this causes."""

    record: R
    events: tuple[Event, ...] = ()


Step = Callable[[R | None], Change[R] | None]
"""A pure function from the document as it is (None: absent) to a change, or None to leave it."""


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An event in the outbox, not yet known to be on the bus."""

    collection: str
    key: str
    event: AnyEvent


@dataclass(frozen=True, slots=True)
class Changed:
    """That a document has this version now, whoever changed it."""

    key: str
    version: int


ChangeListener = Callable[[Record, tuple[PendingEvent, ...]], None]
"""Told of each change that this process made, after it is durable. Must not block or raise."""


class Collection(Protocol[R]):
    """One kind of document."""

    async def get(self, key: str) -> R | None: ...

    async def change(self, key: str, step: Step[R], deadline: Deadline) -> R | None:
        """Apply `step` by compare-and-set, again if another was faster; ConflictError at the end.

        Returns the document as it stands afterwards, also when the step left it alone.
        """

    async def change_all(self, steps: Mapping[str, Step[R]], deadline: Deadline) -> set[str]:
        """Many documents for little more than the price of one, each by compare-and-set.

        Returns the keys that were changed by others meanwhile: ask again for those. At most 1000
        keys.
        """

    async def find(self, where: Where, *, after: str | None = None, limit: int) -> list[R]:
        """Documents in the order of their keys, from the first key beyond `after`."""

    async def newest(
        self,
        kind: type[Part],
        field: str,
        where: Where,
        *,
        beyond: Place | None = None,
        limit: int,
    ) -> list[tuple[str, Part]]:
        """Keys and outlines, from the greatest value of an indexed field down; see `outlines`."""

    async def totals(self, asked: Totals) -> list[Total]:
        """What the database counts and adds up by itself."""

    async def get_many(self, keys: Sequence[str]) -> list[R]:
        """Those of the documents that exist, in any order. At most 1000 keys."""

    async def outlines(
        self, kind: type[Part], *, after: str | None = None, limit: int
    ) -> list[tuple[str, Part]]:
        """Keys and what `kind`, a model with fewer fields, reads of the documents: cheaper."""

    async def outlines_of(self, kind: type[Part], keys: Sequence[str]) -> list[tuple[str, Part]]:
        """The same of those of the named documents that exist. At most 1000 keys."""

    async def due(self, now: datetime, limit: int) -> list[R]:
        """Documents whose `due_at` has passed, the longest overdue first."""

    async def remove(self, key: str, version: int) -> bool:
        """Delete a document that still has this version and no events to publish.

        Other gateways are not told: let a document mean nothing to anybody before it goes.
        """

    async def remove_all(self, versions: Mapping[str, int], deadline: Deadline) -> int:
        """The same for many at once; how many it were. At most 1000 keys."""

    async def forget(self, before: datetime, limit: int) -> int:
        """Delete documents whose `due_at` is before then, the oldest first; how many it were.

        For what has an end of its own, such as logins (`due_at`: when they expire) and statistics
        (`due_at`: of the last use; `before`: what retention leaves). In batches, until it returns
        less than `limit`. Those with events to publish wait for a later round.
        """

    async def position(self) -> int:
        """Where in the order of changes this collection is now; where `changed_since` begins."""

    async def changed_since(self, position: int) -> tuple[list[Changed], int]:
        """What has changed beyond a position, by any gateway, and the position to go on from.

        Some may be told again, so compare versions. A document that changed twice is told once;
        one that was deleted is not told.
        """


class Catalog(Protocol):
    """All collections of one site, and the outbox that they share."""

    @property
    def images(self) -> Collection[ImageRecord]: ...
    @property
    def jobs(self) -> Collection[JobRecord]: ...
    @property
    def stagings(self) -> Collection[StagingRecord]: ...
    @property
    def nodes(self) -> Collection[NodeRecord]: ...
    @property
    def logins(self) -> Collection[LoginRecord]: ...
    @property
    def readers(self) -> Collection[ReadersRecord]: ...
    @property
    def usage(self) -> Collection[UsageRecord]: ...
    @property
    def history(self) -> Collection[MinuteRecord]: ...
    @property
    def storage(self) -> Collection[StorageRecord]: ...

    async def open(self, deadline: Deadline) -> None:
        """Connect and make tables and indexes; CatalogUnavailableError if that fails."""

    async def close(self) -> None: ...

    async def ping(self, deadline: Deadline) -> None:
        """CatalogUnavailableError unless the database answers."""

    def listen(self, listener: ChangeListener) -> None: ...

    async def pending(self, stored_before: datetime, limit: int) -> list[PendingEvent]:
        """Unsettled events that were stored before then, oldest first."""

    async def settle(self, *events: PendingEvent) -> None:
        """Forget events that the bus has taken over. Settling twice is harmless."""
