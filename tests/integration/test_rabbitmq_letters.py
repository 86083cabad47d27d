"""A broker that goes while queues are looked at or letters are replayed: nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aio_pika
import pytest
from pamqp.common import FieldTable
from yarl import URL

from shared.bus.delivery import pack_event
from shared.bus.interface import Letters
from shared.bus.rabbitmq import RabbitBus
from shared.bus.topology import DEAD_QUEUE
from shared.deadline import Deadline
from shared.errors import BusUnavailableError
from tests.support.bus import Recorder, released, soon, unique, work_queue
from tests.support.conditions import eventually
from tests.support.rabbitmq import RabbitNode
from tests.support.relay import Relay, relaying

LETTERS = 300


@pytest.fixture
async def relay(rabbit: RabbitNode) -> AsyncIterator[Relay]:
    url = URL(rabbit.url)
    assert url.host is not None
    assert url.port is not None
    async with relaying(url.host, url.port) as relay:
        yield relay


def through(rabbit: RabbitNode, relay: Relay) -> str:
    return str(URL(rabbit.url).with_host("127.0.0.1").with_port(relay.port))


async def bury(url: str, queue: str, node: str) -> set[str]:
    """Letters as the broker itself makes them."""
    ids = set()
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        for number in range(LETTERS):
            event = released(node, str(number))
            died: FieldTable = {"queue": queue, "reason": "rejected", "time": datetime.now(UTC)}
            message = aio_pika.Message(
                pack_event(event),
                message_id=event.id,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                headers={"x-death": [died]},
            )
            await channel.default_exchange.publish(message, DEAD_QUEUE)
            ids.add(event.id)
    return ids


async def test_a_connection_that_breaks_in_a_replay_of_many_loses_none(
    rabbit: RabbitNode, relay: Relay
) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = RabbitBus(through(rabbit, relay), [queue], client_name="operator")
    worker = RabbitBus(rabbit.url, [queue], client_name="worker")
    recorder = Recorder()
    await bus.open(soon())
    await worker.open(soon())
    try:
        await worker.consume(queue, recorder, slots=16)
        ids = await bury(rabbit.url, queue.name, node)
        replaying = asyncio.create_task(bus.replay(Letters(queue=queue.name), soon()))
        await eventually(lambda: recorder.events or replaying.done(), within=10)
        relay.cut()
        with pytest.raises(BusUnavailableError):
            await replaying
        assert not ids <= set(recorder.ids)  # it was in the middle

        await eventually(lambda: _went(bus, queue.name), within=20)

        await eventually(lambda: ids <= set(recorder.ids), within=20)
        letters = (await bus.dead_letters(10_000)).items
        assert not any(letter.queue == queue.name for letter in letters)
    finally:
        await worker.close()
        await bus.close()


async def _went(bus: RabbitBus, queue: str) -> bool:
    """All that was left, once the broker can be reached and has the letters back."""
    try:
        await bus.replay(Letters(queue=queue), soon())
        found = await bus.dead_letters(10_000)
    except BusUnavailableError:
        return False
    return not any(letter.queue == queue for letter in found.items)


async def test_a_broker_that_is_away_or_hangs_is_not_waited_for(
    rabbit: RabbitNode, relay: Relay
) -> None:
    queue = work_queue(unique("node"))
    bus = RabbitBus(through(rabbit, relay), [queue], client_name="operator")
    await bus.open(soon())
    try:
        assert [each.name for each in (await bus.standings(soon())).queues] == [queue.name]
        with relay.silent(), pytest.raises(BusUnavailableError, match="queues stand"):
            await bus.standings(Deadline.after(0.3))
        assert (await bus.standings(soon())).queues  # nobody was thrown out for that
        await relay.close()
        await eventually(lambda: not bus.connected, within=10)
        with pytest.raises(BusUnavailableError, match="cannot be used"):
            await bus.standings(soon())
    finally:
        await bus.close()
