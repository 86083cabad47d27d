"""The catalog over any store: records to rows and back, compare-and-set, and who is told.

A change reads, asks the pure step, and writes only if the version is still the one that it read;
if not, somebody else was faster and it begins again. Every call to the database runs in a task
of its own: a caller that is cancelled, or out of time, stops waiting, but neither leaves half a
transaction behind nor breaks a connection.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import ValidationError

from shared.catalog.interface import Change, ChangeListener, PendingEvent, Step, Where
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
from shared.catalog.store import Found, Layout, OutboxEntry, Row, Store, Wanted, sortable
from shared.deadline import Deadline
from shared.errors import (
    CatalogUnavailableError,
    ConflictError,
    DeadlineExceededError,
    DrayError,
)
from shared.events import Event, MalformedEventError, decode_event, encode_event
from shared.logging import get_logger
from shared.models import utcnow

R = TypeVar("R", bound=Record)
T = TypeVar("T")

FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.1
MOST_CALLS = 4096
"""Calls that a silent database may leave waiting before new ones are refused at once."""

log = get_logger(__name__)


class UnreadableRecordError(DrayError):
    """A stored record that this version cannot read."""

    code = "record_unreadable"


class StoredCatalog:
    """The `Catalog` over a store."""

    def __init__(self, store: Store, timeout: float) -> None:
        self._session = Session(store, timeout)
        self.images = StoredCollection(ImageRecord, self._session)
        self.jobs = StoredCollection(JobRecord, self._session)
        self.stagings = StoredCollection(StagingRecord, self._session)
        self.nodes = StoredCollection(NodeRecord, self._session)
        self.logins = StoredCollection(LoginRecord, self._session)
        self.tickets = StoredCollection(TicketRecord, self._session)
        self.usage = StoredCollection(UsageRecord, self._session)

    async def open(self, deadline: Deadline) -> None:
        layouts = [
            self.images.layout,
            self.jobs.layout,
            self.stagings.layout,
            self.nodes.layout,
            self.logins.layout,
            self.tickets.layout,
            self.usage.layout,
        ]
        async with self._session.answering("opening it", deadline):
            await self._session.store.open(layouts, deadline)

    async def close(self) -> None:
        await self._session.drain()
        await self._session.store.close()

    async def ping(self, deadline: Deadline) -> None:
        await self._session.ask("asking for a sign of life", self._session.store.ping(), deadline)

    def listen(self, listener: ChangeListener) -> None:
        self._session.listeners.append(listener)

    async def pending(self, stored_before: datetime, limit: int) -> list[PendingEvent]:
        reading = self._session.store.pending(sortable(stored_before), limit)
        found = await self._session.ask("reading the outbox", reading)
        pending = []
        for entry in found:
            try:
                event = decode_event(entry.body.encode())
            except MalformedEventError as exc:
                # A newer version's event: that version will publish it.
                log.warning("outbox_event_unreadable", key=entry.key, error=exc.message)
            else:
                pending.append(PendingEvent(entry.collection, entry.key, event))
        return pending

    async def settle(self, event: PendingEvent) -> None:
        store = self._session.store
        settling = store.settle(event.collection, event.key, event.event.id)
        await self._session.ask("settling an event", settling)


class Session:
    """What the collections of one catalog share: the store, its time limit, the listeners."""

    def __init__(self, store: Store, timeout: float) -> None:
        self.store = store
        self.listeners: list[ChangeListener] = []
        self._timeout = timeout
        self._calls: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def answering(self, doing: str, deadline: Deadline | None) -> AsyncIterator[None]:
        """Bound the body, which only waits for the database, and blame the database."""
        try:
            async with (deadline or Deadline.after(self._timeout)).bound(doing):
                yield
        except DeadlineExceededError as exc:
            message = (
                f"{self.store.place} does not answer: {exc.message}; is it overloaded or down?"
            )
            raise CatalogUnavailableError(message) from exc

    async def ask(
        self, doing: str, call: Coroutine[object, object, T], deadline: Deadline | None = None
    ) -> T:
        """Wait for a call that goes on to its end even if nobody waits for it any more."""
        if len(self._calls) >= MOST_CALLS:
            call.close()
            message = (
                f"{self.store.place} is too slow: {len(self._calls)} calls wait for it already"
            )
            raise CatalogUnavailableError(message)
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        async with self.answering(doing, deadline):
            return await asyncio.shield(task)

    async def drain(self) -> None:
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._timeout)

    def tell(self, record: Record, pending: tuple[PendingEvent, ...]) -> None:
        for listener in self.listeners:
            try:
                listener(record, pending)
            except Exception:  # the change is true already; the outbox makes up for the listener
                log.exception("change_listener_failed", key=record.key)


class StoredCollection(Generic[R]):
    """The `Collection` of one kind of record."""

    def __init__(self, kind: type[R], session: Session) -> None:
        self.layout = Layout(kind.collection, kind.indexes)
        self._kind = kind
        self._name = kind.collection
        self._session = session
        self._store = session.store

    async def get(self, key: str) -> R | None:
        return await self._read(key, None)

    async def change(self, key: str, step: Step[R], deadline: Deadline) -> R | None:
        conflicts = 0
        try:
            while True:
                before = await self._read(key, deadline)
                change = step(before)
                if change is None:
                    return before
                after = _next_version(key, before, change.record)
                writing = self._write(before, after, change)
                if await self._session.ask(f"changing {self._name}/{key}", writing, deadline):
                    return after
                conflicts += 1
                await asyncio.sleep(min(_pause(conflicts), deadline.remaining()))
        except CatalogUnavailableError as exc:
            if conflicts and deadline.expired:
                message = (
                    f"{self._name}/{key} was changed by others {conflicts} times "
                    f"within {deadline.budget:g} s; try again"
                )
                raise ConflictError(message) from exc
            raise

    async def find(self, where: Where, *, after: str | None = None, limit: int) -> list[R]:
        finding = self._store.find(self._name, self._wanted(where), after, limit)
        found = await self._session.ask(f"searching {self._name}", finding)
        return self._readable(found)

    async def due(self, now: datetime, limit: int) -> list[R]:
        looking = self._store.due(self._name, sortable(now), limit)
        found = await self._session.ask(f"looking for due {self._name}", looking)
        return self._readable(found)

    def _readable(self, found: Iterable[Found]) -> list[R]:
        """One record that nobody can read must not hide all others, from users or the sweep."""
        records = []
        for one in found:
            try:
                records.append(self._record(one))
            except UnreadableRecordError as exc:
                log.error("record_unreadable", error=exc.message)  # noqa: TRY400
        return records

    async def _read(self, key: str, deadline: Deadline | None) -> R | None:
        reading = self._store.read(self._name, key)
        found = await self._session.ask(f"reading {self._name}/{key}", reading, deadline)
        return None if found is None else self._record(found)

    async def _write(self, before: R | None, after: R, change: Change[R]) -> bool:
        entries, pending = self._outbox(after.key, change.events)
        row = Row(
            key=after.key,
            version=after.version,
            due_at=None if after.due_at is None else sortable(after.due_at),
            fields={field: _text(getattr(after, field)) for field in self.layout.fields},
            document=after.model_dump_json(),
        )
        expected = None if before is None else before.version
        written = await self._store.write(self._name, row, expected, entries)
        if written:
            self._session.tell(after, pending)
        return written

    def _outbox(
        self, key: str, events: tuple[Event, ...]
    ) -> tuple[list[OutboxEntry], tuple[PendingEvent, ...]]:
        stored_at = sortable(utcnow())
        entries, pending = [], []
        for event in events:
            body = encode_event(event)
            # Decoded at once: what could not be read back would stay in the outbox for ever.
            pending.append(PendingEvent(self._name, key, decode_event(body)))
            entries.append(OutboxEntry(event.id, stored_at, body.decode()))
        return entries, tuple(pending)

    def _record(self, found: Found) -> R:
        try:
            return self._kind.model_validate_json(found.document)
        except ValidationError as exc:
            problem = exc.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in problem["loc"]) or "document"
            message = (
                f"{self._name}/{found.key} in the catalog cannot be read: {field}: "
                f"{problem['msg']}; was it written by a newer version?"
            )
            raise UnreadableRecordError(message) from exc

    def _wanted(self, where: Where) -> Wanted:
        if unknown := where.keys() - set(self.layout.fields):
            raise ValueError(f"{self._name} has no index for {sorted(unknown)}")
        return {
            field: (str(values),) if isinstance(values, str) else tuple(map(str, values))
            for field, values in where.items()
        }


def _next_version(key: str, before: R | None, record: R) -> R:
    if record.key != key:
        raise ValueError(f"a step for {key} returned a record for {record.key}")
    version = 1 if before is None else before.version + 1
    return record.model_copy(update={"version": version})


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _pause(conflicts: int) -> float:
    """Random, so that those who collided do not meet again, and longer each time."""
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(conflicts, 10)))
