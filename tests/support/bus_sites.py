"""Both adapters of the bus as sites that services can join."""

from typing import Protocol

import aio_pika

from shared.bus.embedded import EmbeddedBus, _Delivery
from shared.bus.interface import Bus, WorkQueue
from shared.bus.rabbitmq import RabbitBus
from tests.support.bus import soon
from tests.support.rabbitmq import RabbitNode


class Site(Protocol):
    """Services that meet on one bus."""

    durable: bool

    async def join(self, *queues: WorkQueue) -> Bus:
        """One more service on the bus, which knows these queues."""

    async def inject(self, queue: WorkQueue, body: bytes) -> None:
        """Put a message there that no version of us wrote."""

    async def close(self) -> None: ...


class EmbeddedSite:
    """All services share the one bus of their process."""

    durable = False

    def __init__(self) -> None:
        self._bus: EmbeddedBus | None = None

    async def join(self, *queues: WorkQueue) -> Bus:
        if self._bus is None:
            self._bus = EmbeddedBus(queues)
            await self._bus.open(soon())
        return self._bus

    async def inject(self, queue: WorkQueue, body: bytes) -> None:
        assert self._bus is not None
        self._bus._queues[queue.name].append(_Delivery(None, body))

    async def close(self) -> None:
        if self._bus is not None:
            await self._bus.close()


class RabbitSite:
    """Each service has its own connection to the broker."""

    durable = True

    def __init__(self, node: RabbitNode) -> None:
        self._url = node.url
        self._buses: list[RabbitBus] = []

    async def join(self, *queues: WorkQueue) -> Bus:
        bus = RabbitBus(self._url, queues, client_name="contract")
        self._buses.append(bus)
        await bus.open(soon())
        return bus

    async def inject(self, queue: WorkQueue, body: bytes) -> None:
        connection = await aio_pika.connect(self._url)
        async with connection, connection.channel() as channel:
            await channel.default_exchange.publish(aio_pika.Message(body), queue.name)

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()
