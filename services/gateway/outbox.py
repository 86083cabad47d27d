"""The relay from the outbox to the bus.

Events of changes that this process made go out at once; a sweep finds those that a crash or an
outage left behind, whoever stored them. An event is settled only after the bus confirmed it, so
it may be published twice, and never not at all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

from shared.bus.interface import Bus
from shared.catalog.interface import Catalog, PendingEvent
from shared.catalog.records import Record
from shared.deadline import Deadline
from shared.errors import DrayError, UndeliverableError
from shared.events import Event, PlacementRequested
from shared.events.images import SystemEvent
from shared.logging import following, get_logger
from shared.metrics import EVENTS_PUBLISHED
from shared.models import utcnow
from shared.tasks import cancel_all, repeat

log = get_logger(__name__)

WORKERS = 4
TOGETHER = 50
"""Published at once by each worker, and settled at once."""
BACKLOG = 10_000
LEFT_BEHIND_SECONDS = 5.0
BATCH = 500

UndeliverableHandler = Callable[[Event], Awaitable[bool]]
"""Told of an event that no queue takes; True if that was its end, False to keep trying."""


def of_no_system(event: Event, systems: Collection[str]) -> bool:
    """To a system that the settings have no more: nobody will ever take it."""
    return isinstance(event, SystemEvent | PlacementRequested) and event.system not in systems


class OutboxRelay:
    """Publishes what the catalog's outbox holds."""

    def __init__(
        self,
        catalog: Catalog,
        bus: Bus,
        publish_timeout: float,
        on_undeliverable: UndeliverableHandler,
    ) -> None:
        self._catalog = catalog
        self._bus = bus
        self._timeout = publish_timeout
        self._on_undeliverable = on_undeliverable
        self._waiting: asyncio.Queue[PendingEvent] = asyncio.Queue(BACKLOG)
        self._taken: set[str] = set()
        # How old an event must be before the sweep takes it for left behind; at the start, any
        # is: it may be of our own life before a crash.
        self._left_alone = timedelta(0)
        self._tasks: list[asyncio.Task[None]] = []
        catalog.listen(self._stored)

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(), name=f"outbox-{n}") for n in range(WORKERS)
        ]
        self._tasks.append(
            asyncio.create_task(repeat("outbox", LEFT_BEHIND_SECONDS, self._sweep), name="outbox")
        )

    async def stop(self) -> None:
        """What is not published yet stays in the outbox for the next start."""
        await cancel_all(*self._tasks)

    def _stored(self, _record: Record, events: tuple[PendingEvent, ...]) -> None:
        for event in events:
            self._take(event)

    def _take(self, pending: PendingEvent) -> bool:
        if pending.event.id in self._taken or self._waiting.full():
            return False  # under way already, or left to the sweep
        self._taken.add(pending.event.id)
        self._waiting.put_nowait(pending)
        return True

    async def _sweep(self) -> None:
        before = utcnow() - self._left_alone
        last: set[str] = set()
        while True:
            found = await self._catalog.pending(before, BATCH)
            taken = [self._take(pending) for pending in found]
            seen, last = last, {pending.event.id for pending in found}
            # The same ones once more: nobody takes them for now.
            if len(found) < BATCH or not any(taken) or last == seen:
                break
            await self._waiting.join()
        self._left_alone = timedelta(seconds=LEFT_BEHIND_SECONDS)

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < TOGETHER and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                gone = await asyncio.gather(*map(self._published, batch))
                settled = [each for each, is_gone in zip(batch, gone, strict=True) if is_gone]
                if settled:
                    await self._catalog.settle(*settled)
            except DrayError as exc:
                log.warning("events_published_again", code=exc.code, error=exc.message)
            except Exception:  # a worker must survive what nobody foresaw; the events are kept
                log.exception("events_published_again")
            finally:
                for each in batch:
                    self._taken.discard(each.event.id)
                    self._waiting.task_done()

    async def _published(self, pending: PendingEvent) -> bool:
        """Whether nothing is left to be done for it."""
        with following(pending.event):
            try:
                return await self._publish(pending.event)
            except DrayError as exc:
                log.warning("event_kept_in_outbox", code=exc.code, error=exc.message)
            except Exception:
                log.exception("event_kept_in_outbox")
        return False

    async def _publish(self, event: Event) -> bool:
        try:
            await self._bus.publish(event, Deadline.after(self._timeout))
        except UndeliverableError as exc:
            if await self._on_undeliverable(event):
                return True
            log.warning("event_kept_in_outbox", code=exc.code, error=exc.message)
            return False
        EVENTS_PUBLISHED.labels(event.type).inc()
        return True
