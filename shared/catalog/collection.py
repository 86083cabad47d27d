"""One kind of record over any store: to rows and back, and changed by compare-and-set.

A change reads, asks the pure step, and writes only if the version is still the one that it read;
if not, somebody else was faster and it begins again.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from shared.catalog.interface import (
    Change,
    Changed,
    PendingEvent,
    Step,
    Where,
)
from shared.catalog.records import (
    Record,
)
from shared.catalog.session import Session
from shared.catalog.store import Found, Layout, OutboxEntry, Row, Write, sortable
from shared.catalog.totals import Place, Total, Totals, Wanted
from shared.deadline import Deadline
from shared.errors import (
    CatalogUnavailableError,
    ConflictError,
    DrayError,
)
from shared.events import Event, decode_event, encode_event
from shared.logging import get_logger
from shared.models import utcnow

R = TypeVar("R", bound=Record)
Part = TypeVar("Part", bound=BaseModel)

FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.1
MOST_KEYS = 1000
CHANGES_AT_ONCE = 1000

log = get_logger(__name__)


class UnreadableRecordError(DrayError):
    """A stored record that this version cannot read."""

    code = "record_unreadable"


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

    async def change_all(self, steps: Mapping[str, Step[R]], deadline: Deadline) -> set[str]:
        found = {record.key: record for record in await self.get_many(list(steps))}
        writes: list[Write] = []
        changed: list[tuple[R, tuple[PendingEvent, ...]]] = []
        for key, step in steps.items():
            before = found.get(key)
            change = step(before)
            if change is None:
                continue
            after = _next_version(key, before, change.record)
            entries, pending = self._outbox(key, change.events)
            expected = None if before is None else before.version
            writes.append(Write(self._row(after), expected, entries))
            changed.append((after, pending))
        if not writes:
            return set()
        writing = self._write_all(changed, writes)
        return await self._session.ask(f"changing {len(writes)} {self._name}", writing, deadline)

    async def find(self, where: Where, *, after: str | None = None, limit: int) -> list[R]:
        finding = self._store.find(self._name, self._wanted(where), after, limit)
        found = await self._session.ask(f"searching {self._name}", finding)
        return self._readable(found)

    async def newest(
        self,
        kind: type[Part],
        field: str,
        where: Where,
        *,
        beyond: Place | None = None,
        limit: int,
    ) -> list[tuple[str, Part]]:
        self._indexed({field})
        finding = self._store.newest(self._name, self._wanted(where), field, beyond, limit)
        found = await self._session.ask(f"looking for the newest {self._name}", finding)
        return self._outlined(kind, found)

    async def totals(self, asked: Totals) -> list[Total]:
        self._indexed(asked.fields)
        adding = self._store.totals(self._name, asked)
        return await self._session.ask(f"adding up {self._name}", adding)

    async def get_many(self, keys: Sequence[str]) -> list[R]:
        return self._readable(await self._read_many(keys))

    async def outlines(
        self, kind: type[Part], *, after: str | None = None, limit: int
    ) -> list[tuple[str, Part]]:
        finding = self._store.find(self._name, {}, after, limit)
        found = await self._session.ask(f"searching {self._name}", finding)
        return self._outlined(kind, found)

    async def outlines_of(self, kind: type[Part], keys: Sequence[str]) -> list[tuple[str, Part]]:
        return self._outlined(kind, await self._read_many(keys))

    async def due(self, now: datetime, limit: int) -> list[R]:
        looking = self._store.due(self._name, sortable(now), limit)
        found = await self._session.ask(f"looking for due {self._name}", looking)
        return self._readable(found)

    async def remove(self, key: str, version: int) -> bool:
        removing = self._store.remove(self._name, key, version)
        return await self._session.ask(f"removing {self._name}/{key}", removing)

    async def remove_all(self, versions: Mapping[str, int], deadline: Deadline) -> int:
        if not versions:
            return 0
        removing = self._store.remove_all(self._name, versions)
        doing = f"removing {len(versions)} {self._name}"
        return await self._session.ask(doing, removing, deadline)

    async def forget(self, before: datetime, limit: int) -> int:
        forgetting = self._store.forget(self._name, sortable(before), limit)
        return await self._session.ask(f"forgetting old {self._name}", forgetting)

    async def position(self) -> int:
        looking = self._store.position(self._name)
        return await self._session.ask(f"looking where {self._name} are", looking)

    async def changed_since(self, position: int) -> tuple[list[Changed], int]:
        beyond = max(0, position - self._store.overlap)
        changes: list[Changed] = []
        # Before anything is looked for. What was changed some time ago is not told for ever, though
        # nothing came after it.
        now = await self._session.ask("looking what time it is", self._store.now())
        while True:
            looking = self._store.changed(self._name, beyond, CHANGES_AT_ONCE)
            found = await self._session.ask(f"looking for changed {self._name}", looking)
            changes += [Changed(each.key, each.version) for each in found]
            if found:
                beyond = found[-1].position
            if len(found) < CHANGES_AT_ONCE:
                return changes, max(position, beyond, now if changes else 0)

    async def _read_many(self, keys: Sequence[str]) -> list[Found]:
        if len(keys) > MOST_KEYS:
            raise ValueError(f"{len(keys)} keys are more than {MOST_KEYS}")
        if not keys:
            return []
        reading = self._store.read_many(self._name, keys)
        return await self._session.ask(f"reading {self._name}", reading)

    def _outlined(self, kind: type[Part], found: Iterable[Found]) -> list[tuple[str, Part]]:
        outlines = []
        for one in found:
            try:
                outlines.append((one.key, kind.model_validate_json(one.document)))
            except ValidationError as exc:
                log.error("record_unreadable", key=one.key, error=str(exc)[:300])  # noqa: TRY400
        return outlines

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
        expected = None if before is None else before.version
        written = await self._store.write(self._name, self._row(after), expected, entries)
        if written:
            self._session.tell(after, pending)
        return written

    async def _write_all(
        self, changed: Sequence[tuple[R, tuple[PendingEvent, ...]]], writes: Sequence[Write]
    ) -> set[str]:
        """The keys of those that somebody else had changed."""
        overtaken = await self._store.write_all(self._name, writes)
        for record, pending in changed:
            if record.key not in overtaken:
                self._session.tell(record, pending)
        return overtaken

    def _row(self, record: R) -> Row:
        return Row(
            key=record.key,
            version=record.version,
            due_at=None if record.due_at is None else sortable(record.due_at),
            fields={field: _text(getattr(record, field)) for field in self.layout.fields},
            document=record.model_dump_json(),
        )

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
        self._indexed(where.keys())
        return {
            field: (values,) if isinstance(values, str | None) else tuple(map(str, values))
            for field, values in where.items()
        }

    def _indexed(self, fields: AbstractSet[str]) -> None:
        if unknown := fields - set(self.layout.fields):
            raise ValueError(f"{self._name} has no index for {sorted(unknown)}")


def _next_version(key: str, before: R | None, record: R) -> R:
    if record.key != key:
        raise ValueError(f"a step for {key} returned a record for {record.key}")
    version = 1 if before is None else before.version + 1
    return record.model_copy(update={"version": version})


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return sortable(value)
    return str(int(value)) if isinstance(value, bool) else str(value)


def _pause(conflicts: int) -> float:
    """Random, so that those who collided do not meet again, and longer each time."""
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(conflicts, 10)))
