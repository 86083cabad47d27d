"""The bus of one process: the semantics of RabbitMQ, as far as a service can tell, in memory.

Events are encoded and decoded on the way, so that what would not survive the wire does not
survive here either. Nothing outlives the process: `durable` says so.
"""

import asyncio
import contextvars
import functools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from shared.bus.delivery import (
    DELIVERY_LIMIT_REACHED,
    REJECTED,
    being_cancelled,
    letter_id,
    pack_event,
    pause,
    printable,
    redelivery_delay,
    wind_down,
)
from shared.bus.interface import (
    DELIVERY_LIMIT,
    AgentQueue,
    BusStandings,
    DeadLetter,
    DeadLetters,
    Handler,
    Letters,
    QueueDepth,
    Replayed,
    WorkQueue,
)
from shared.deadline import Deadline
from shared.errors import BusUnavailableError, UndeliverableError
from shared.events import Event, MalformedEventError, decode_event
from shared.logging import get_logger
from shared.metrics import BUS_CONNECTED, EVENTS_PUBLISHED
from shared.models import utcnow

log = get_logger(__name__)

MAX_QUEUE_LENGTH = 10_000
MAX_DEAD_LETTERS = 1_000


@dataclass(slots=True)
class _Delivery:
    """One message in one queue."""

    id: str | None
    body: bytes
    redeliveries: int = 0


@dataclass(eq=False, slots=True)
class _Queue:
    """What waits for a worker. `filled` counts it, so that a waiting worker can be cancelled."""

    name: str
    keys: frozenset[str]
    waiting: deque[_Delivery] = field(default_factory=deque)
    filled: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def append(self, delivery: _Delivery) -> None:
        self.waiting.append(delivery)
        self.filled.release()

    def give_back(self, delivery: _Delivery) -> None:
        delivery.redeliveries += 1
        self.waiting.appendleft(delivery)
        self.filled.release()

    async def take(self) -> _Delivery:
        await self.filled.acquire()
        return self.waiting.popleft()


@dataclass(eq=False, slots=True)
class _Dead:
    """A delivery that came to its end, and where."""

    delivery: _Delivery
    queue: str
    reason: str
    died_at: datetime

    @property
    def id(self) -> str:
        return letter_id(self.delivery.id, self.delivery.body)


class EmbeddedBus:
    """The event bus of `dray up`, and of tests.

    The services of one process share it: each opens it and closes it, and the last one ends it.
    """

    durable = False

    def __init__(self, queues: Iterable[WorkQueue]) -> None:
        self._queues: dict[str, _Queue] = {}
        self._bound: defaultdict[str, list[_Queue]] = defaultdict(list)
        for queue in queues:
            self._declare(queue)
        self._work = tuple(self._queues)
        self._consumers: set[_Consumer] = set()
        self._dead: deque[_Dead] = deque(maxlen=MAX_DEAD_LETTERS)
        self._users = 0

    async def open(self, deadline: Deadline) -> None:
        self._users += 1
        BUS_CONNECTED.set(1)

    async def close(self) -> None:
        self._users = max(0, self._users - 1)
        if self._users:
            return
        BUS_CONNECTED.set(0)
        for consumer in tuple(self._consumers):
            await consumer.stop(Deadline.after(0))

    @property
    def connected(self) -> bool:
        return self._users > 0

    async def publish(self, event: Event, deadline: Deadline) -> None:
        self._require_open()
        body = pack_event(event)
        key = event.routing_key
        bound = self._bound.get(key)
        if not bound:
            raise UndeliverableError(f"no queue is bound to '{key}': nobody would receive it")
        for queue in bound:  # all or none
            if len(queue.waiting) >= MAX_QUEUE_LENGTH:
                raise BusUnavailableError(
                    f"{MAX_QUEUE_LENGTH} events wait in '{queue.name}' already: "
                    "its workers do not keep up"
                )
        for queue in bound:
            queue.append(_Delivery(event.id, body))
        EVENTS_PUBLISHED.labels(event.type).inc()

    async def consume(
        self, queue: WorkQueue | AgentQueue, handler: Handler, *, slots: int
    ) -> "_Consumer":
        self._require_open()
        source = self._queues.get(queue.name) or self._declare(queue)
        vanishes = isinstance(queue, AgentQueue)
        consumer = _Consumer(self, source, handler, slots, vanishes=vanishes)
        self._consumers.add(consumer)
        return consumer

    async def standings(self, deadline: Deadline) -> BusStandings:
        self._require_open()
        consumers = Counter(consumer.queue.name for consumer in self._consumers)
        depths = (
            QueueDepth(name, len(self._queues[name].waiting), consumers[name])
            for name in self._work
        )
        return BusStandings(tuple(depths), len(self._dead))

    async def dead_letters(self, limit: int) -> DeadLetters:
        items = (
            DeadLetter(
                id=dead.id,
                queue=dead.queue,
                reason=dead.reason,
                deliveries=dead.delivery.redeliveries + 1,
                died_at=dead.died_at,
                body=printable(dead.delivery.body),
            )
            for dead in tuple(self._dead)[: max(0, limit)]
        )
        return DeadLetters(tuple(items), len(self._dead))

    async def replay(self, wanted: Letters, deadline: Deadline) -> Replayed:
        self._require_open()
        sent: list[tuple[str, str]] = []
        homeless: set[str] = set()
        for dead in self._letters(wanted):
            queue = self._queues.get(dead.queue)
            if queue is None:
                homeless.add(dead.queue)
                continue
            self._dead.remove(dead)
            queue.append(_Delivery(dead.delivery.id, dead.delivery.body))
            sent.append((dead.id, dead.queue))
        return Replayed(tuple(sent), len(self._dead), frozenset(homeless))

    async def discard(self, letter_id: str, deadline: Deadline) -> str | None:
        for dead in self._letters(Letters(ids=frozenset({letter_id}))):
            self._dead.remove(dead)
            return dead.queue
        return None

    def _letters(self, wanted: Letters) -> list[_Dead]:
        return [dead for dead in self._dead if wanted.include(dead.id, dead.queue)]

    def bury(self, delivery: _Delivery, queue: str, reason: str) -> None:
        log.warning("event_dead", event_id=delivery.id, queue=queue, reason=reason)
        self._dead.append(_Dead(delivery, queue, reason, utcnow()))

    def forget(self, consumer: "_Consumer", queue: _Queue, *, vanishes: bool) -> None:
        """An agent's queue vanishes with its last consumer."""
        self._consumers.discard(consumer)
        in_use = any(other.queue is queue for other in self._consumers)
        if vanishes and not in_use and self._queues.get(queue.name) is queue:
            del self._queues[queue.name]
            for key in queue.keys:
                self._bound[key].remove(queue)
                if not self._bound[key]:
                    del self._bound[key]

    def _declare(self, queue: WorkQueue | AgentQueue) -> _Queue:
        made = self._queues[queue.name] = _Queue(queue.name, frozenset(queue.keys))
        for key in made.keys:
            self._bound[key].append(made)
        return made

    def _require_open(self) -> None:
        if not self.connected:
            raise BusUnavailableError("the event bus of this process is not open")


class _Consumer:
    """Runs a handler for each event of one queue, `slots` at once at most."""

    def __init__(
        self, bus: EmbeddedBus, queue: _Queue, handler: Handler, slots: int, *, vanishes: bool
    ) -> None:
        self.queue = queue
        self._bus = bus
        self._handler = handler
        self._vanishes = vanishes
        self._slots = asyncio.Semaphore(slots)
        self._context = contextvars.copy_context()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder = asyncio.create_task(self._feed(), name=f"consume-{queue.name}")

    @property
    def handling(self) -> int:
        """How many events are in its handler now."""
        return len(self._tasks)

    async def stop(self, deadline: Deadline) -> None:
        self._stopping.set()
        self._feeder.cancel()
        try:
            await wind_down(tuple(self._tasks), deadline)
        finally:
            self._bus.forget(self, self.queue, vanishes=self._vanishes)

    async def _feed(self) -> None:
        while True:
            await self._slots.acquire()
            delivery = await self.queue.take()
            task = asyncio.create_task(
                self._process(delivery),
                name=f"handle-{self.queue.name}",
                context=self._context.copy(),
            )
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._done, delivery))

    def _done(self, delivery: _Delivery, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if task.cancelled():
            self.queue.give_back(delivery)

    async def _process(self, delivery: _Delivery) -> None:
        if await self._digested(delivery):
            return
        if delivery.redeliveries >= DELIVERY_LIMIT:
            self._bus.bury(delivery, self.queue.name, DELIVERY_LIMIT_REACHED)
            return
        # The slot stays taken meanwhile, as the prefetch does on a broker.
        await pause(redelivery_delay(delivery.redeliveries), self._stopping)
        self.queue.give_back(delivery)

    async def _digested(self, delivery: _Delivery) -> bool:
        try:
            await self._handler(decode_event(delivery.body))
        except MalformedEventError:
            self._bus.bury(delivery, self.queue.name, REJECTED)
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            return False
        except Exception:  # noqa: BLE001 - whatever a handler raises, its event is tried again
            return False
        return True
