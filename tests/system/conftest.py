"""Fixtures of whole sites."""

from collections.abc import AsyncIterator

import aio_pika
import pytest
import pytest_asyncio

from shared.bus.topology import DEAD_QUEUE, work_queues
from shared.events import agent_key
from tests.support.rabbitmq import RabbitNode

NODES = ("node1", "v1", "v2", "v3")


@pytest.fixture
async def broker_url(rabbit: RabbitNode) -> AsyncIterator[str]:
    """The session's broker, without the queues of the test before."""
    yield rabbit.url
    await forget_queues(rabbit.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_broker_url(rabbit: RabbitNode) -> AsyncIterator[str]:
    """The same for all tests of a module."""
    yield rabbit.url
    await forget_queues(rabbit.url)


async def forget_queues(url: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        work = [queue.name for queue in work_queues(["cluster", "second"])]
        for name in (*work, DEAD_QUEUE, *map(agent_key, NODES)):
            await channel.queue_delete(name)
