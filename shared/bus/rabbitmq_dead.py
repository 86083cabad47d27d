"""The dead letters on RabbitMQ: one queue for all, each message with where it died.

Each look takes messages without acknowledging them, on a connection of its own that is closed
again: whatever happens meanwhile, the broker has them back. While one gateway looks, another sees
those letters missing.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, PublishError

from shared.bus.delivery import DELIVERY_LIMIT_REACHED, letter_id, printable
from shared.bus.interface import DELIVERY_LIMIT, DeadLetter, DeadLetters, Letters, Replayed
from shared.bus.rabbitmq_link import Link, LinkLostError, Session
from shared.bus.topology import DEAD_QUEUE
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError

LOOK_SECONDS = 10.0
TOGETHER = 64
"""Sent at once in a replay of many."""
ENOUGH_SECONDS = 2.0
"""A replay of many begins no further batch when less than this is left."""


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

    async def look(self, limit: int) -> DeadLetters:
        letters: list[DeadLetter] = []
        total = 0
        async with self._visit(Deadline.after(LOOK_SECONDS)) as (session, channel):
            while len(letters) < max(limit, 1) and (message := await _next(session, channel)):
                letters.append(_letter(message))
                total = len(letters) + _behind(message)
        return DeadLetters(tuple(letters[: max(limit, 0)]), total)

    async def replay(self, wanted: Letters, deadline: Deadline) -> Replayed:
        sent: dict[tuple[str, str], None] = {}
        homeless: set[str] = set()
        taken = behind = 0
        async with self._visit(deadline) as (session, channel):
            while batch := await _some(session, channel, TOGETHER):
                taken, behind = taken + len(batch), _behind(batch[-1])
                # What was sent and is here again died at once. It stays with us until the end,
                # so that this has one.
                chosen = [
                    message
                    for message in batch
                    if wanted.include(*_name(message)) and _name(message) not in sent
                ]
                for message, has_gone in await _resent_all(session, channel, chosen):
                    if has_gone:
                        sent[_name(message)] = None
                    else:
                        homeless.add(_death(message).queue)
                if _all_found(wanted, sent) or deadline.remaining() < ENOUGH_SECONDS:
                    break
        return Replayed(tuple(sent), taken - len(sent) + behind, frozenset(homeless))

    async def discard(self, wanted: str, deadline: Deadline) -> str | None:
        async with self._visit(deadline) as (session, channel):
            while (message := await _next(session, channel)) is not None:
                if _id(message) == wanted:
                    await session.call(message.ack())
                    return _death(message).queue
        return None

    @asynccontextmanager
    async def _visit(self, deadline: Deadline) -> AsyncIterator[tuple[Session, AbstractChannel]]:
        try:
            async with deadline.bound("visiting the dead letters"), self._alone:
                session = await self._link.connect()
                try:
                    channel = await session.channel()
                    yield session, channel
                    await _give_back(session, channel)
                finally:
                    await session.close()
        except (LinkLostError, DeadlineExceededError) as exc:
            raise self._link.unavailable(exc.message) from exc


async def _give_back(session: Session, channel: AbstractChannel) -> None:
    """At once: of a connection that is only closed, the broker has them back a moment later."""
    wire = await session.call(channel.get_underlay_channel())
    await session.call(wire.basic_nack(0, multiple=True, requeue=True))


async def _next(session: Session, channel: AbstractChannel) -> AbstractIncomingMessage | None:
    queue = await channel.get_queue(DEAD_QUEUE, ensure=False)
    return await session.call(queue.get(fail=False))


async def _some(
    session: Session, channel: AbstractChannel, limit: int
) -> list[AbstractIncomingMessage]:
    batch: list[AbstractIncomingMessage] = []
    while len(batch) < limit and (message := await _next(session, channel)) is not None:
        batch.append(message)
    return batch


async def _resent_all(
    session: Session, channel: AbstractChannel, messages: Iterable[AbstractIncomingMessage]
) -> list[tuple[AbstractIncomingMessage, bool]]:
    """Each message, and whether it went.

    One of an id at a time: the library tells by the id which publish nobody took.
    """
    outcomes: list[tuple[AbstractIncomingMessage, bool]] = []
    waiting = list(messages)
    while waiting:
        together = {_id(message): message for message in reversed(waiting)}.values()
        waiting = [message for message in waiting if message not in together]
        work = (_resent(session, channel, message) for message in together)
        went = await asyncio.gather(*work, return_exceptions=True)
        for message, outcome in zip(together, went, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append((message, outcome))
    return outcomes


async def _resent(
    session: Session, channel: AbstractChannel, message: AbstractIncomingMessage
) -> bool:
    """Send first, remove then: in between the event exists twice, never not at all.

    False: its queue is gone.
    """
    fresh = Message(
        message.body,
        delivery_mode=DeliveryMode.PERSISTENT,
        content_type=message.content_type,
        message_id=_id(message),
        type=message.type,
    )
    try:
        await session.call(
            channel.default_exchange.publish(fresh, _death(message).queue, mandatory=True)
        )
    except PublishError:
        return False
    except DeliveryError as exc:
        raise LinkLostError("the broker refused the message") from exc
    await session.call(message.ack())
    return True


def _all_found(wanted: Letters, sent: Iterable[tuple[str, str]]) -> bool:
    return wanted.ids is not None and wanted.ids <= {letter for letter, _ in sent}


def _behind(message: AbstractIncomingMessage) -> int:
    """How many there were behind it when it was taken."""
    return int(message.message_count or 0)


def _name(message: AbstractIncomingMessage) -> tuple[str, str]:
    """What an operator knows it by, and the queue that it came from."""
    return _id(message), _death(message).queue


def _id(message: AbstractIncomingMessage) -> str:
    return letter_id(message.message_id, message.body)


def _letter(message: AbstractIncomingMessage) -> DeadLetter:
    death = _death(message)
    return DeadLetter(
        id=_id(message),
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
