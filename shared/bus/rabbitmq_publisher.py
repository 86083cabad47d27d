"""Publishing to RabbitMQ: a message is confirmed by the broker, or the caller is told otherwise."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractMessage
from aio_pika.exceptions import DeliveryError, PublishError

from shared.bus.delivery import backoff
from shared.bus.interface import WorkQueue
from shared.bus.rabbitmq_link import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    Link,
    LinkLostError,
    Session,
)
from shared.bus.rabbitmq_topology import declare_all
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, UndeliverableError


@dataclass(frozen=True, slots=True)
class _Outlet:
    """The publishing channel of one session."""

    session: Session
    channel: AbstractChannel
    exchange: AbstractExchange

    @property
    def usable(self) -> bool:
        return not (self.session.lost.done() or self.channel.is_closed)


class Publisher:
    """One channel for all publishes of a process, opened again when it is gone."""

    def __init__(self, link: Link, queues: Sequence[WorkQueue]) -> None:
        self._link = link
        self._queues = queues
        self._outlet: _Outlet | None = None
        self._opening = asyncio.Lock()
        self._under_way: dict[str, asyncio.Event] = {}

    async def publish(self, message: AbstractMessage, routing_key: str, deadline: Deadline) -> None:
        """Return once the broker has the message, after a reconnection if there is time for it.

        If a confirmation is lost, the message is sent again: it may arrive twice, never not.
        """
        async with self._alone(message.message_id or "", deadline):
            await self._persist(message, routing_key, deadline)

    async def ready(self, deadline: Deadline) -> None:
        """Everything is declared and a publish could start; tried until the deadline."""
        await self._persist(None, "", deadline)

    async def _persist(
        self, message: AbstractMessage | None, routing_key: str, deadline: Deadline
    ) -> None:
        failures = 0
        while True:
            try:
                outlet = await self._open(deadline)
                if message is not None:
                    await _send(outlet, message, routing_key, deadline)
            except LinkLostError as exc:
                delay = backoff(failures, first=FIRST_RETRY_SECONDS, ceiling=LAST_RETRY_SECONDS)
                if deadline.remaining() <= delay:
                    raise self._link.unavailable(exc.message) from exc
                failures += 1
                await asyncio.sleep(delay)
            else:
                return

    async def _open(self, deadline: Deadline) -> _Outlet:
        if self._outlet is not None and self._outlet.usable:
            return self._outlet
        try:
            async with asyncio.timeout(deadline.remaining()) as timer, self._opening:
                if self._outlet is None or not self._outlet.usable:
                    self._outlet = await self._opened(await self._link.session_within(deadline))
                return self._outlet
        except TimeoutError as exc:
            if not timer.expired():
                raise
            raise self._link.unavailable() from exc

    async def _opened(self, session: Session) -> _Outlet:
        channel = await session.channel()
        try:
            exchange = await session.call(declare_all(channel, self._queues))
        except BaseException:
            await session.close_channel(channel)
            raise
        return _Outlet(session, channel, exchange)

    @asynccontextmanager
    async def _alone(self, message_id: str, deadline: Deadline) -> AsyncIterator[None]:
        """One publish of a message id at a time.

        The library finds the publish that a returned message belongs to by its id; of two at
        once, it would report the first as taken over although nobody took it.
        """
        while (other := self._under_way.get(message_id)) is not None:
            try:
                async with deadline.bound("waiting for the same event's other publish"):
                    await other.wait()
            except DeadlineExceededError as exc:
                raise self._link.unavailable(exc.message) from exc
        done = self._under_way[message_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._under_way[message_id]
            done.set()


async def _send(
    outlet: _Outlet, message: AbstractMessage, routing_key: str, deadline: Deadline
) -> None:
    work = outlet.exchange.publish(message, routing_key, mandatory=True)
    try:
        await outlet.session.call(work, deadline.remaining())
    except PublishError as exc:
        raise UndeliverableError(
            f"no queue is bound to '{routing_key}': nobody would receive it"
        ) from exc
    except DeliveryError as exc:
        raise LinkLostError("the broker refused the message") from exc
