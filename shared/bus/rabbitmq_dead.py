"""The dead letters on RabbitMQ: one queue for all, each message with where it died.

Each look takes messages without acknowledging them, on a connection of its own that is closed
again: whatever happens meanwhile, the broker has them back. While one gateway looks, another sees
those letters missing.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, PublishError

from shared.bus.delivery import DELIVERY_LIMIT_REACHED, letter_id, printable
from shared.bus.interface import DELIVERY_LIMIT, DeadLetter
from shared.bus.rabbitmq_link import Link, LinkLostError, Session
from shared.bus.topology import DEAD_QUEUE
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, UndeliverableError

LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Death:
    """What the broker noted when the message died last."""

    queue: str
    reason: str
    at: datetime | None


class Graveyard:
    """Looks at dead letters and brings them back."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._alone = asyncio.Lock()

    async def look(self, limit: int) -> Sequence[DeadLetter]:
        letters: list[DeadLetter] = []
        async with self._visit(Deadline.after(LOOK_SECONDS)) as (session, channel):
            while len(letters) < limit:
                message = await _next(session, channel)
                if message is None:
                    break
                letters.append(_letter(message))
        return letters

    async def replay(self, wanted: str, deadline: Deadline) -> bool:
        async with self._visit(deadline) as (session, channel):
            while (message := await _next(session, channel)) is not None:
                if letter_id(message.message_id, message.body) == wanted:
                    await _resend(session, channel, message)
                    return True
        return False

    @asynccontextmanager
    async def _visit(self, deadline: Deadline) -> AsyncIterator[tuple[Session, AbstractChannel]]:
        try:
            async with deadline.bound("visiting the dead letters"), self._alone:
                session = await self._link.connect()
                try:
                    yield session, await session.channel()
                finally:
                    await session.close()
        except (LinkLostError, DeadlineExceededError) as exc:
            raise self._link.unavailable(exc.message) from exc


async def _next(session: Session, channel: AbstractChannel) -> AbstractIncomingMessage | None:
    queue = await channel.get_queue(DEAD_QUEUE, ensure=False)
    return await session.call(queue.get(fail=False))


async def _resend(
    session: Session, channel: AbstractChannel, message: AbstractIncomingMessage
) -> None:
    """Send first, remove then: in between the event exists twice, never not at all."""
    queue = _death(message).queue
    fresh = Message(
        message.body,
        delivery_mode=DeliveryMode.PERSISTENT,
        content_type=message.content_type,
        message_id=letter_id(message.message_id, message.body),
        type=message.type,
    )
    try:
        await session.call(channel.default_exchange.publish(fresh, queue, mandatory=True))
    except PublishError as exc:
        raise UndeliverableError(f"the queue '{queue}' of this dead letter is gone") from exc
    except DeliveryError as exc:
        raise LinkLostError("the broker refused the message") from exc
    await session.call(message.ack())


def _letter(message: AbstractIncomingMessage) -> DeadLetter:
    death = _death(message)
    return DeadLetter(
        id=letter_id(message.message_id, message.body),
        queue=death.queue,
        reason=death.reason,
        # The broker does not pass its own count on; what was rejected at sight was seen once.
        deliveries=DELIVERY_LIMIT + 1 if death.reason == DELIVERY_LIMIT_REACHED else 1,
        died_at=death.at,
        body=printable(message.body),
    )


def _death(message: AbstractIncomingMessage) -> _Death:
    deaths = message.headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else {}
    if not isinstance(last, dict):
        last = {}
    at = last.get("time")
    return _Death(
        queue=str(last.get("queue", "")),
        reason=str(last.get("reason", "")),
        at=at if isinstance(at, datetime) else None,
    )
