"""How the queues stand on RabbitMQ, without its management plugin.

Passive declarations on a channel of their own: the answer is the queue's own, not a figure that
somebody kept, and a channel that the broker closes meanwhile is nobody else's.
"""

from collections.abc import Sequence

from aio_pika.abc import AbstractChannel

from shared.bus.interface import BusStandings, QueueDepth
from shared.bus.rabbitmq_link import Link, LinkLostError, Session
from shared.bus.topology import DEAD_QUEUE
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError


class QueueLook:
    """Asks the broker how these queues stand, and the dead letters."""

    def __init__(self, link: Link, queues: Sequence[str]) -> None:
        self._link = link
        self._queues = queues

    async def look(self, deadline: Deadline) -> BusStandings:
        if not self._link.connected:
            raise self._link.unavailable()
        try:
            async with deadline.bound("asking how the queues stand"):
                session = await self._link.session_within(deadline)
                channel = await session.channel()
                try:
                    # The queues were declared before anything else; one that was deleted since
                    # is declared again by whoever uses it next.
                    depths = [await depth(session, channel, name) for name in self._queues]
                    dead = await depth(session, channel, DEAD_QUEUE)
                finally:
                    await session.close_channel(channel)
        except (LinkLostError, DeadlineExceededError) as exc:
            raise self._link.unavailable(exc.message) from exc
        return BusStandings(tuple(depths), dead.waiting)


async def depth(session: Session, channel: AbstractChannel, name: str) -> QueueDepth:
    """Of one queue, as it stands now."""
    queue = await session.call(channel.declare_queue(name, passive=True))
    found = queue.declaration_result
    return QueueDepth(name, found.message_count or 0, found.consumer_count or 0)
