"""The bus on RabbitMQ, for more than one machine: quorum queues, confirms, dead letters."""

from collections.abc import Iterable

from aio_pika import DeliveryMode, Message

from shared.bus.delivery import pack_event
from shared.bus.interface import (
    AgentQueue,
    BusStandings,
    DeadLetters,
    Handler,
    Letters,
    Replayed,
    WorkQueue,
)
from shared.bus.rabbitmq_consumer import RabbitConsumer
from shared.bus.rabbitmq_dead import Graveyard
from shared.bus.rabbitmq_link import Link
from shared.bus.rabbitmq_publisher import Publisher
from shared.bus.rabbitmq_standings import QueueLook
from shared.deadline import Deadline
from shared.events import Event
from shared.metrics import EVENTS_PUBLISHED

SUBSCRIBE_SECONDS = 30.0


class RabbitBus:
    """The event bus of a site with a broker."""

    durable = True

    def __init__(
        self,
        url: str,
        queues: Iterable[WorkQueue],
        *,
        client_name: str,
        spread: float | None = None,
    ) -> None:
        self._link = Link(url, client_name, spread)
        known = tuple(queues)
        self._publisher = Publisher(self._link, known)
        self._standings = QueueLook(self._link, tuple(queue.name for queue in known))
        self._graveyard = Graveyard(self._link)
        self._consumers: list[RabbitConsumer] = []

    async def open(self, deadline: Deadline) -> None:
        self._link.start()
        await self._publisher.ready(deadline)

    async def close(self) -> None:
        for consumer in self._consumers:
            await consumer.stop(Deadline.after(0))
        await self._link.close()

    @property
    def connected(self) -> bool:
        return self._link.connected

    async def publish(self, event: Event, deadline: Deadline) -> None:
        message = Message(
            pack_event(event),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            message_id=event.id,
            type=event.type,
            timestamp=event.time,
        )
        await self._publisher.publish(message, event.routing_key, deadline)
        EVENTS_PUBLISHED.labels(event.type).inc()

    async def consume(
        self, queue: WorkQueue | AgentQueue, handler: Handler, *, slots: int
    ) -> RabbitConsumer:
        consumer = RabbitConsumer(self._link, queue, handler, slots=slots)
        await consumer.start(Deadline.after(SUBSCRIBE_SECONDS))
        self._consumers.append(consumer)
        return consumer

    async def standings(self, deadline: Deadline) -> BusStandings:
        return await self._standings.look(deadline)

    async def dead_letters(self, limit: int) -> DeadLetters:
        return await self._graveyard.look(limit)

    async def replay(self, wanted: Letters, deadline: Deadline) -> Replayed:
        return await self._graveyard.replay(wanted, deadline)

    async def discard(self, letter_id: str, deadline: Deadline) -> str | None:
        return await self._graveyard.discard(letter_id, deadline)
