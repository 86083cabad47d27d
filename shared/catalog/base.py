"""The catalog over any store: its collections, and the outbox that they share."""

from collections import defaultdict
from datetime import datetime

from shared.catalog.collection import StoredCollection
from shared.catalog.interface import (
    ChangeListener,
    PendingEvent,
)
from shared.catalog.records import (
    ImageRecord,
    JobRecord,
    LoginRecord,
    NodeRecord,
    ReadersRecord,
    StagingRecord,
    UsageRecord,
)
from shared.catalog.session import Session
from shared.catalog.standing_records import MinuteRecord, StorageRecord
from shared.catalog.store import Store, sortable
from shared.deadline import Deadline
from shared.events import MalformedEventError, decode_event
from shared.logging import get_logger

log = get_logger(__name__)


class StoredCatalog:
    """The `Catalog` over a store."""

    def __init__(self, store: Store, timeout: float) -> None:
        self._session = Session(store, timeout)
        self.images = StoredCollection(ImageRecord, self._session)
        self.jobs = StoredCollection(JobRecord, self._session)
        self.stagings = StoredCollection(StagingRecord, self._session)
        self.nodes = StoredCollection(NodeRecord, self._session)
        self.logins = StoredCollection(LoginRecord, self._session)
        self.readers = StoredCollection(ReadersRecord, self._session)
        self.usage = StoredCollection(UsageRecord, self._session)
        self.history = StoredCollection(MinuteRecord, self._session)
        self.storage = StoredCollection(StorageRecord, self._session)

    async def open(self, deadline: Deadline) -> None:
        layouts = [
            self.images.layout,
            self.jobs.layout,
            self.stagings.layout,
            self.nodes.layout,
            self.logins.layout,
            self.readers.layout,
            self.usage.layout,
            self.history.layout,
            self.storage.layout,
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

    async def settle(self, *events: PendingEvent) -> None:
        by_collection: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for each in events:
            by_collection[each.collection].append((each.key, each.event.id))
        for collection, entries in by_collection.items():
            settling = self._session.store.settle(collection, entries)
            await self._session.ask(f"settling events of {collection}", settling)
