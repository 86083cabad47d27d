"""What the gateway may ask of the catalog, whichever database holds it.

Every change is a compare-and-set on the document's version, and the events that it causes are
stored with it, in the same document or transaction (the outbox). So a crash between write and
publish loses nothing: what was not settled is published by whoever comes next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from shared.catalog.records import (
    ImageRecord,
    JobRecord,
    LoginRecord,
    NodeRecord,
    Record,
    StagingRecord,
    TicketRecord,
    UsageRecord,
)
from shared.deadline import Deadline
from shared.events import AnyEvent, Event

R = TypeVar("R", bound=Record)

Where = Mapping[str, str | Sequence[str]]
"""Top-level fields and the value, or the list of values, that each may have."""


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


ChangeListener = Callable[[Record, tuple[PendingEvent, ...]], None]
"""Told of each change that this process made, after it is durable. Must not block or raise."""


class Collection(Protocol[R]):
    """One kind of document."""

    async def get(self, key: str) -> R | None: ...

    async def change(self, key: str, step: Step[R], deadline: Deadline) -> R | None:
        """Apply `step` by compare-and-set, again if another was faster; ConflictError at the end.

        Returns the document as it stands afterwards, also when the step left it alone.
        """

    async def find(self, where: Where, *, after: str | None = None, limit: int) -> list[R]:
        """Documents in the order of their keys, from the first key beyond `after`."""

    async def due(self, now: datetime, limit: int) -> list[R]:
        """Documents whose `due_at` has passed, the longest overdue first."""


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
    def tickets(self) -> Collection[TicketRecord]: ...
    @property
    def usage(self) -> Collection[UsageRecord]: ...

    async def open(self, deadline: Deadline) -> None:
        """Connect and make tables and indexes; CatalogUnavailableError if that fails."""

    async def close(self) -> None: ...

    async def ping(self, deadline: Deadline) -> None:
        """CatalogUnavailableError unless the database answers."""

    def listen(self, listener: ChangeListener) -> None: ...

    async def pending(self, stored_before: datetime, limit: int) -> list[PendingEvent]:
        """Unsettled events that were stored before then, oldest first."""

    async def settle(self, event: PendingEvent) -> None:
        """Forget an event that the bus has taken over. Settling twice is harmless."""
