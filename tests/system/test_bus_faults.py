"""A broker that goes away, and events that come twice, late or out of order."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from shared.bus.rabbitmq import RabbitBus
from shared.bus.topology import EXCHANGE, work_queues
from shared.deadline import Deadline
from tests.support.conditions import eventually
from tests.support.gate import Gate
from tests.support.images import File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.rabbitmq import RabbitNode, need_rabbitmq
from tests.support.registry import DebianRegistry
from tests.support.site import Site, but_for_use

MEGABYTE = 1 << 20
ECHOED = "x-echoed"


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    image = build_image(
        [layer_of({"a": File(noise(2 * MEGABYTE))}), layer_of({"b": File(noise(MEGABYTE, 2))})]
    )
    with DebianRegistry(tmp_path / "registry") as registry:
        Pusher(registry.url).push(image, "team/app", "1")
        async with Gate(registry.port) as gate:
            yield gate


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("state", ["PULLING", "TRANSFER"])
async def test_a_broker_that_restarts_in_a_pull_loses_nothing(
    how: str, state: str, tmp_path: Path, gate: Gate
) -> None:
    need_rabbitmq()
    broker = RabbitNode(tmp_path / "broker")
    try:
        await start_with_settled_queues(broker)
        # A lease far longer than the test: no sweep may be what saves the pull.
        settings = {"bus": {"url": broker.url}, "pull": {"lease": 600.0}}
        async with Site(tmp_path / "site", settings) as site:
            await site.start()
            if state == "PULLING":
                gate.hold_after(MEGABYTE)
            else:
                site.freeze("distributor")
            pull = (await site.pull(f"{gate.host}/team/app:1"))["id"]
            await site.reached(pull, state)
            broker.stop() if how == "stopped" else broker.kill()
            site.thaw_all()
            gate.open()
            broker.start()
            view = await site.reached(pull, "READY", "FAILURE", within=90)
            assert (view["state"], view["attempt"]) == ("READY", 1), view
            assert site.check_images() == 1
    finally:
        broker.discard()


async def start_with_settled_queues(broker: RabbitNode) -> None:
    """Start a broker whose queues are not brand-new.

    RabbitMQ 3.10 writes down a quorum queue's existence up to five seconds late: one that was
    declared just before a SIGKILL never answers again, whatever its clients do.
    """
    broker.start()
    bus = RabbitBus(broker.url, work_queues(["cluster"]), client_name="test")
    await bus.open(Deadline.after(30))
    await bus.close()
    broker.stop()
    broker.start()


class Echo:
    """Repeats every event: once at once, and all of them again, shuffled, when asked."""

    def __init__(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        self._exchange = exchange
        self.heard: list[AbstractIncomingMessage] = []

    async def hear(self, message: AbstractIncomingMessage) -> None:
        async with message.process():
            if ECHOED not in message.headers:
                self.heard.append(message)
                await self._repeat(message)

    async def repeat_all(self) -> None:
        late = self.heard * 2
        random.Random(7).shuffle(late)
        for message in late:
            await self._repeat(message)

    async def _repeat(self, message: AbstractIncomingMessage) -> None:
        copy = aio_pika.Message(
            message.body,
            headers={ECHOED: True},
            message_id=message.message_id,
            content_type=message.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        assert message.routing_key is not None
        await self._exchange.publish(copy, message.routing_key, mandatory=False)


async def test_doubled_late_and_reordered_events_change_nothing(
    tmp_path: Path, broker_url: str, gate: Gate
) -> None:
    async with (
        Site(tmp_path / "site", {"bus": {"url": broker_url}}) as site,
        await aio_pika.connect(broker_url) as connection,
    ):
        await site.start()
        channel = await connection.channel()
        exchange = await channel.get_exchange(EXCHANGE)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        echo = Echo(exchange)
        await queue.consume(echo.hear)

        reference = f"{gate.host}/team/app:1"
        pull = (await site.pull(reference))["id"]
        first = await site.reached(pull, "READY", "FAILURE")
        assert first["state"] == "READY", first["failure"]
        again = await site.pull(reference)
        second = await site.reached(again["id"], "READY", "FAILURE")
        kinds = {message.routing_key for message in echo.heard}
        assert {"pull.requested", "image.converted", "image.placed"} <= kinds
        assert {"refresh.requested", "image.unchanged", "pull.progressed"} <= kinds

        await echo.repeat_all()
        await eventually(lambda: all_digested(connection), within=30)
        assert await site.pull_view(again["id"]) == second
        assert but_for_use(second["image"]) == but_for_use(first["image"])
        assert site.check_images() == 1


async def all_digested(connection: aio_pika.abc.AbstractConnection) -> bool:
    """No queue holds an event, taken or not: deleting a queue only if it is empty tells."""
    async with connection.channel() as channel:
        for queue in work_queues(["cluster"]):
            declared = await channel.declare_queue(queue.name, passive=True)
            if declared.declaration_result.message_count:
                return False
    await asyncio.sleep(0)
    return True
