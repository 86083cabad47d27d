"""Fixtures of whole sites."""

from collections.abc import AsyncIterator

import aio_pika
import pytest

from shared.bus.topology import DEAD_QUEUE, work_queues
from tests.support.rabbitmq import RabbitNode


@pytest.fixture
async def broker_url(rabbit: RabbitNode) -> AsyncIterator[str]:
    """The session's broker, without the queues of the test before."""
    yield rabbit.url
    async with await aio_pika.connect(rabbit.url) as connection:
        channel = await connection.channel()
        for name in (*(queue.name for queue in work_queues(["cluster"])), DEAD_QUEUE):
            await channel.queue_delete(name)
