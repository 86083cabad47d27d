"""Consuming from RabbitMQ: a subscription that is set up again whenever it ends.

It ends with its connection, when the broker closes the channel (a consumer timeout, say) and when
its queue is deleted. Handlers that run then go on: their work may be hours old and is worth
keeping, although the broker gives the event to somebody again.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import aiormq.abc
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from shared.bus.delivery import (
    backoff,
    being_cancelled,
    letter_id,
    pause,
    redelivery_delay,
    wind_down,
)
from shared.bus.interface import DELIVERY_LIMIT, AgentQueue, Handler, WorkQueue
from shared.bus.rabbitmq_link import (
    CALL_SECONDS,
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    Link,
    LinkLostError,
    Session,
    guarded,
)
from shared.bus.rabbitmq_topology import declare_queue
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from shared.events import MalformedEventError, decode_event
from shared.logging import get_logger
from shared.tasks import cancel_all

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Subscription:
    """One channel with one consumer on it, until it ends."""

    session: Session
    channel: AbstractChannel
    wire: aiormq.abc.AbstractChannel
    closed: "asyncio.Future[Any]"
    dropped: "asyncio.Future[None]"
    """Done when the broker cancels the consumer: its queue is gone."""

    @property
    def over(self) -> bool:
        return self.session.lost.done() or self.closed.done()

    async def ended(self) -> None:
        ends = {self.session.lost, self.closed, self.dropped}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


class RabbitConsumer:
    """Runs a handler for each event of a queue, `slots` at once at most, across reconnections."""

    def __init__(
        self, link: Link, queue: WorkQueue | AgentQueue, handler: Handler, *, slots: int
    ) -> None:
        self._link = link
        self._queue = queue
        self._handler = handler
        self._prefetch = slots
        self._slots = asyncio.Semaphore(slots)
        self._context = contextvars.copy_context()
        self._subscription: _Subscription | None = None
        self._subscribed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._failures: dict[str, int] = {}

    async def start(self, deadline: Deadline) -> None:
        """Return when events can arrive; BusUnavailableError if that takes too long."""
        self._keeper = asyncio.create_task(self._keep(), name=f"consume-{self._queue.name}")
        try:
            async with deadline.bound(f"subscribing to {self._queue.name}"):
                await self._subscribed.wait()
        except BaseException as exc:
            await self.stop(Deadline.after(0))
            if isinstance(exc, DeadlineExceededError):
                raise self._link.unavailable(self._trouble) from exc
            raise

    async def stop(self, deadline: Deadline) -> None:
        self._stopping.set()
        subscription, self._subscription = self._subscription, None
        try:
            if self._keeper is not None:
                await cancel_all(self._keeper)
            if subscription is not None:
                await self._unsubscribe(subscription)
            await wind_down(tuple(self._tasks), deadline)
        finally:
            try:
                await wind_down(tuple(self._tasks), Deadline.after(0))
            finally:
                if subscription is not None:
                    await self._give_back(subscription)

    async def _keep(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                subscription = await self._subscribe(await self._link.session())
            except LinkLostError as exc:
                if exc.message != self._trouble:
                    log.warning("not_subscribed", queue=self._queue.name, error=exc.message)
                self._trouble = exc.message
            else:
                await self._live(subscription)
                if time.monotonic() - began > LAST_RETRY_SECONDS:
                    failures = 0
            delay = backoff(failures, first=FIRST_RETRY_SECONDS, ceiling=LAST_RETRY_SECONDS)
            failures += 1
            await asyncio.sleep(delay)

    async def _live(self, subscription: _Subscription) -> None:
        self._trouble = None
        self._subscription = subscription
        self._subscribed.set()
        await subscription.ended()
        self._subscription = None
        log.warning("subscription_ended", queue=self._queue.name)
        await subscription.session.close_channel(subscription.channel)

    async def _subscribe(self, session: Session) -> _Subscription:
        channel = await session.channel()
        try:
            wire = await channel.get_underlay_channel()
            dropped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            wire.on_consumer_cancel_callbacks.add(lambda _: _finish(dropped))
            subscription = _Subscription(session, channel, wire, wire.closing, dropped)
            await session.call(channel.set_qos(prefetch_count=self._prefetch))
            queue = await session.call(declare_queue(channel, self._queue))

            async def receive(message: AbstractIncomingMessage) -> None:
                self._receive(subscription, message)

            await session.call(queue.consume(receive, consumer_tag=self._queue.name))
        except BaseException:
            await session.close_channel(channel)
            raise
        return subscription

    def _receive(self, subscription: _Subscription, message: AbstractIncomingMessage) -> None:
        """Start a task of our own: the library ends its tasks with the channel."""
        if self._stopping.is_set():
            return  # goes back when the channel is closed
        task = asyncio.create_task(
            self._process(subscription, message),
            name=f"handle-{self._queue.name}",
            context=self._context.copy(),
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(self, subscription: _Subscription, message: AbstractIncomingMessage) -> None:
        async with self._slots:
            # A handler of the subscription before may have held the slot; what waited for it
            # meanwhile may belong to somebody else again.
            if subscription.over or self._stopping.is_set():
                return
            try:
                digested = await self._digested(message)
            except MalformedEventError as exc:
                log.warning("event_dead", queue=self._queue.name, error=exc.message)
                await self._settle(subscription, message.reject(requeue=False))
                return
            if digested:
                self._failures.pop(_id(message), None)
                await self._settle(subscription, message.ack())
            else:
                await self._try_again(subscription, message)

    async def _try_again(
        self, subscription: _Subscription, message: AbstractIncomingMessage
    ) -> None:
        counted = message.headers.get("x-delivery-count")  # none at the first delivery
        redeliveries = counted if isinstance(counted, int) else 0
        requeue = True
        if isinstance(self._queue, AgentQueue):
            # A classic queue does not count. Nobody else consumes it, so we can.
            redeliveries = self._failures.pop(_id(message), 0)
            requeue = redeliveries < DELIVERY_LIMIT
            if requeue:
                self._failures[_id(message)] = redeliveries + 1
        # The slot stays taken meanwhile, as the broker's prefetch does.
        await pause(redelivery_delay(redeliveries), self._stopping)
        # Not nack: from RabbitMQ 4.3 on, only reject counts towards the delivery limit.
        await self._settle(subscription, message.reject(requeue=requeue))

    async def _digested(self, message: AbstractIncomingMessage) -> bool:
        event = decode_event(message.body)
        try:
            await self._handler(event)
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            return False
        except MalformedEventError:
            raise
        except Exception:  # noqa: BLE001 - whatever a handler raises, its event is tried again
            return False
        return True

    async def _settle(self, subscription: _Subscription, verdict: Awaitable[None]) -> None:
        """Tell the broker. If it cannot be told any more, the event comes again, as it may."""
        try:
            await guarded(verdict, CALL_SECONDS, subscription.session.lost, subscription.closed)
        except LinkLostError as exc:
            log.info("settled_too_late", queue=self._queue.name, error=exc.message)

    async def _unsubscribe(self, subscription: _Subscription) -> None:
        with contextlib.suppress(LinkLostError):
            await subscription.session.call(
                subscription.wire.basic_cancel(self._queue.name), CALL_SECONDS
            )

    async def _give_back(self, subscription: _Subscription) -> None:
        """Return what was not settled, without counting it as failed where the broker can tell."""
        if not subscription.over:
            everything = subscription.wire.basic_nack(0, multiple=True, requeue=True)
            with contextlib.suppress(LinkLostError):
                await subscription.session.call(everything)
        await subscription.session.close_channel(subscription.channel)


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _id(message: AbstractIncomingMessage) -> str:
    return letter_id(message.message_id, message.body)
