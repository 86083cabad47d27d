"""How the queues of `topology` look on RabbitMQ. Declared by everybody, again on each channel.

Work queues and the dead letters are quorum queues: replicated, fsynced before they confirm, and
they count deliveries. An agent's queue is a classic one: cheap enough for thousands, and it goes
when its agent has been away for too long. Declaring is idempotent; what exists with other
arguments is refused by the broker, with a message that names the argument.
"""

from collections.abc import Iterable

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue
from pamqp.common import FieldTable

from shared.bus.interface import DELIVERY_LIMIT, AgentQueue, WorkQueue
from shared.bus.topology import DEAD_EXCHANGE, DEAD_QUEUE, EXCHANGE

# No handler may run so long by our settings: their own deadlines end it before the broker does.
# RabbitMQ before 3.12 ignores the argument, and needs consumer_timeout in its own settings.
CONSUMER_TIMEOUT_MS = 8 * 24 * 3600 * 1000

WORK_ARGUMENTS: FieldTable = {
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-consumer-timeout": CONSUMER_TIMEOUT_MS,
    "x-dead-letter-exchange": DEAD_EXCHANGE,
    # The work queue keeps a dead event until the dead letters have it; this needs the overflow
    # behaviour, although the queue's length is not limited.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

# Looking at a dead letter counts as a delivery. RabbitMQ 4 drops a message after 20 of them by
# default, and only it understands -1, so the limit is a number that nobody reaches.
DEAD_ARGUMENTS: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": 2_000_000_000}


async def declare_all(channel: AbstractChannel, queues: Iterable[WorkQueue]) -> AbstractExchange:
    """The exchanges, the dead letters and these queues, bound to the exchange that is returned."""
    exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.TOPIC, durable=True)
    graveyard = await channel.declare_exchange(DEAD_EXCHANGE, ExchangeType.FANOUT, durable=True)
    dead = await channel.declare_queue(DEAD_QUEUE, durable=True, arguments=DEAD_ARGUMENTS)
    await dead.bind(graveyard)
    for queue in queues:
        await _declare(channel, exchange, queue)
    return exchange


async def declare_queue(channel: AbstractChannel, queue: WorkQueue | AgentQueue) -> AbstractQueue:
    """One queue and what it depends on, for its consumer."""
    if isinstance(queue, WorkQueue):
        await declare_all(channel, (queue,))
    else:  # thousands of agents come back at once: only what is theirs
        exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.TOPIC, durable=True)
        await _declare(channel, exchange, queue)
    return await channel.get_queue(queue.name, ensure=False)


async def _declare(
    channel: AbstractChannel, exchange: AbstractExchange, queue: WorkQueue | AgentQueue
) -> None:
    arguments = _agent_arguments(queue) if isinstance(queue, AgentQueue) else WORK_ARGUMENTS
    declared = await channel.declare_queue(queue.name, durable=True, arguments=arguments)
    for key in queue.keys:
        await declared.bind(exchange, key)


def _agent_arguments(queue: AgentQueue) -> FieldTable:
    return {
        "x-queue-type": "classic",
        "x-expires": round(queue.expires_seconds * 1000),
        "x-dead-letter-exchange": DEAD_EXCHANGE,
    }
