"""All image records of the catalog, in outline, in this gateway's memory.

It says what is READY, what is under way, and who may know: lists, lookups and the queue choose
from it without reading a record, and `access` decides for each. It is filled at the start and kept
true by the change feed; about 2.3 KiB for each record of the catalog with ten layers.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from sys import intern
from typing import Final

from services.gateway.access import listed, may_see
from services.gateway.auth.identity import Principal
from services.gateway.stock.made_of import MadeOf, OutlinedShare, made_of
from shared.catalog.records import Failure, ImageRecord, ImageType, PullStep
from shared.models import Bytes, ImageId, Instant, Tolerant
from shared.states import IN_FLIGHT, State

_QUEUED: Final = frozenset({*IN_FLIGHT, State.FAILURE})


class OutlinedImage(Tolerant):
    """What is read of an image that can be used."""

    image_id: ImageId
    size: Bytes
    layers: tuple[str, ...] = ()
    shares: tuple[OutlinedShare, ...] = ()
    ready_at: Instant


class OutlinedProgress(Tolerant):
    """What is read of a pull's progress."""

    waiting: str | None = None


class Outline(Tolerant):
    """What is read of an image record."""

    version: int
    system: str
    itype: ImageType
    reference: str
    owner: int | None = None
    private: bool = False
    allowed_uids: tuple[int, ...] = ()
    allowed_gids: tuple[int, ...] = ()
    state: State
    pull_id: str
    requested_at: Instant
    requested_uid: int | None = None
    brought_by: int | None = None
    last_pull: Instant
    last_used: Instant | None = None
    expires_at: Instant | None = None
    pinned: bool = False
    failure: Failure | None = None
    current: OutlinedImage | None = None
    updated_at: Instant
    waiting_since: Instant
    begun: bool = False
    progress: OutlinedProgress | None = None
    steps: tuple[PullStep, ...] = ()

    @property
    def refused(self) -> bool:
        return self.current is None and self.failure is not None and self.failure.refused


@dataclass(frozen=True, slots=True)
class Flow:
    """How a pull goes that is under way, or how it failed."""

    since: datetime
    """When it came into its state."""
    waiting: bool
    """No worker has taken it up."""
    held_up: bool
    """It says itself that it waits: for a registry."""
    failure: str | None
    """The failure's code."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. Its fields are those that `access` asks for, and by which it is found."""

    key: str
    version: int
    system: str
    itype: ImageType
    reference: str
    owner: int | None
    private: bool
    allowed_uids: tuple[int, ...]
    allowed_gids: tuple[int, ...]
    state: State
    pull_id: str
    requested_at: datetime
    image_id: ImageId | None
    """Of the image that can be used; None: there is none."""
    size: int
    made: MadeOf | None
    ready_at: datetime | None
    expires_at: datetime | None
    pinned: bool
    requested_uid: int | None
    refused: bool
    brought_by: int | None
    last_pull: datetime
    last_used: datetime | None
    flow: Flow | None
    """Of what is queued."""

    @property
    def queued(self) -> bool:
        """Under way, or failed of late."""
        return self.state in _QUEUED


EntryListener = Callable[[Entry | None, Entry], None]
"""Told what a record was and what it is; of one that is gone, that it is EXPIRED."""


class Directory:
    """Entries by key, in the order of keys, by reference and by image."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[str] = []
        self._by_reference: dict[tuple[str, str, str], tuple[Entry, ...]] = {}
        self._by_image: defaultdict[ImageId, set[str]] = defaultdict(set)
        self._queued: set[str] = set()
        self._listeners: list[EntryListener] = []

    def listen(self, listener: EntryListener) -> None:
        """Told of each change. Must not block or raise."""
        self._listeners.append(listener)

    def version(self, key: str) -> int:
        found = self._entries.get(key)
        return 0 if found is None else found.version

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def note(self, key: str, record: ImageRecord | Outline) -> None:
        """Take over what is newer than what is known."""
        before = self._entries.get(key)
        if before is not None and not _is_newer(before, record):
            return
        entry = _entry(key, record, self._made(record))
        if before is None:
            self._insert(entry)
        elif before.image_id != entry.image_id:
            self._forget_image(before)
        self._entries[key] = entry
        self._put_beside(entry)
        if entry.image_id is not None:
            self._by_image[entry.image_id].add(key)
        (self._queued.add if entry.queued else self._queued.discard)(key)
        for listener in self._listeners:
            listener(before, entry)

    def drop(self, key: str) -> None:
        """The record is gone."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        del self._order[bisect_right(self._order, key) - 1]
        self._forget_image(entry)
        self._queued.discard(key)
        named = (entry.system, entry.itype, entry.reference)
        others = tuple(each for each in self._by_reference[named] if each.key != key)
        if others:
            self._by_reference[named] = others
        else:
            del self._by_reference[named]
        gone = replace(entry, state=State.EXPIRED, image_id=None, size=0, made=None)
        for listener in self._listeners:
            listener(entry, gone)

    def named(self, system: str, itype: str, reference: str) -> tuple[Entry, ...]:
        """The records of one reference: the site's, and those of its owners."""
        return self._by_reference.get((system, itype, reference), ())

    def of_image(self, system: str, image_id: str) -> list[Entry]:
        entries = [self._entries[key] for key in self._by_image.get(image_id, ())]
        return [entry for entry in entries if entry.system == system]

    def usable(
        self, systems: Iterable[str], principal: Principal, after: str | None
    ) -> Iterator[Entry]:
        """What a principal can use, in the order of keys, beyond one key."""
        wanted = frozenset(systems)
        begin = 0 if after is None else bisect_right(self._order, after)
        for position in range(begin, len(self._order)):
            entry = self._entries[self._order[position]]
            if entry.image_id is not None and entry.system in wanted and listed(principal, entry):
                yield entry

    def queue(self, systems: Iterable[str], principal: Principal) -> list[Entry]:
        """What is under way, then what failed, as far as a principal may know: newest first."""
        found = [each for each in self.queued(systems) if may_see(principal, each)]
        return sorted(found, key=queue_place, reverse=True)

    def queued(self, systems: Iterable[str]) -> list[Entry]:
        """The same, whoever may know of it, in no order."""
        wanted = frozenset(systems)
        entries = map(self._entries.__getitem__, self._queued)
        return [each for each in entries if each.system in wanted]

    def keys(self) -> Iterable[str]:
        return self._order

    def following(self, key: str, limit: int) -> list[Entry]:
        """The next entries beyond a key: to go through all of them while they change."""
        begin = bisect_right(self._order, key)
        return [self._entries[each] for each in self._order[begin : begin + limit]]

    def __len__(self) -> int:
        return len(self._order)

    def _insert(self, entry: Entry) -> None:
        if not self._order or self._order[-1] < entry.key:
            self._order.append(entry.key)
        else:
            insort(self._order, entry.key)

    def _put_beside(self, entry: Entry) -> None:
        """Among the records of its reference, in the place of what it was."""
        named = (entry.system, entry.itype, entry.reference)
        others = self._by_reference.get(named, ())
        kept = tuple(each for each in others if each.key != entry.key)
        self._by_reference[named] = (*kept, entry)

    def _made(self, record: ImageRecord | Outline) -> MadeOf | None:
        """What its image is made of: once in memory, however many references stand for it."""
        if record.current is None:
            return None
        for key in self._by_image.get(record.current.image_id, ()):
            known = self._entries[key].made
            if known is not None and (known.packs or not record.current.shares):
                return known
        return made_of(record.current.layers, record.current.shares)

    def _forget_image(self, entry: Entry) -> None:
        if entry.image_id is None:
            return
        keys = self._by_image[entry.image_id]
        keys.discard(entry.key)
        if not keys:
            del self._by_image[entry.image_id]


def queue_place(entry: Entry) -> tuple[bool, datetime, str]:
    """Where an entry stands in the queue; the greatest is shown first."""
    return entry.state.in_flight, entry.requested_at, entry.key


def _is_newer(known: Entry, record: ImageRecord | Outline) -> bool:
    if known.state is State.EXPIRED and known.pull_id != record.pull_id:
        # It was forgotten and begun anew, which nobody told: its versions count from one again.
        return True
    return record.version > known.version


def _entry(key: str, record: ImageRecord | Outline, made: MadeOf | None) -> Entry:
    return Entry(
        key=intern(key),
        version=record.version,
        system=intern(record.system),
        itype=record.itype,
        reference=intern(record.reference),
        owner=record.owner,
        private=record.private,
        allowed_uids=record.allowed_uids,
        allowed_gids=record.allowed_gids,
        state=record.state,
        pull_id=record.pull_id,
        requested_at=record.requested_at,
        image_id=None if record.current is None else intern(record.current.image_id),
        size=0 if record.current is None else record.current.size,
        made=made,
        ready_at=None if record.current is None else record.current.ready_at,
        expires_at=record.expires_at,
        pinned=record.pinned,
        requested_uid=record.requested_uid,
        refused=record.refused,
        brought_by=record.brought_by,
        last_pull=record.last_pull,
        last_used=record.last_used,
        flow=_flow(record) if record.state in _QUEUED else None,
    )


def _flow(record: ImageRecord | Outline) -> Flow:
    if record.steps and record.steps[-1].state is record.state:
        since = record.steps[-1].at
    elif record.state is State.FAILURE:  # an earlier version noted no steps
        since = record.updated_at
    else:
        since = record.waiting_since
    return Flow(
        since=since,
        waiting=record.state.in_flight and not record.begun,
        held_up=record.progress is not None and record.progress.waiting is not None,
        failure=None if record.failure is None else record.failure.code,
    )
