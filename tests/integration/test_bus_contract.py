"""What every bus promises its services, asked of both adapters alike."""

import asyncio
import contextvars

import pytest

from shared.bus.delivery import OversizedEventError
from shared.bus.interface import AgentQueue
from shared.deadline import Deadline
from shared.errors import BusUnavailableError, UndeliverableError
from shared.events import (
    MAX_EVENT_BYTES,
    AnyEvent,
    JobAllocated,
    LayerProgress,
    NodeImage,
    PullProgressed,
    agent_key,
)
from shared.states import State
from tests.support.bus import (
    BlockedRecorder,
    Recorder,
    released,
    soon,
    unique,
    work_queue,
)
from tests.support.bus_sites import Site
from tests.support.conditions import eventually


async def test_an_event_arrives_as_it_was_sent(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = Recorder()
    await bus.consume(queue, recorder, slots=1)
    image = NodeImage(image_id="a" * 64, content_digest="b" * 64, size=1 << 40)
    sent = JobAllocated(
        correlation_id="job-ü", node=node, job_id="7", system="local", images=(image,)
    )

    await bus.publish(sent, soon())

    await eventually(lambda: recorder.events, within=10)
    assert recorder.events == [sent]
    assert bus.connected
    assert bus.durable is bus_site.durable


async def test_each_bound_queue_gets_its_own_copy(bus_site: Site) -> None:
    node, other = unique("node"), unique("node")
    both, one, none = work_queue(node, other), work_queue(node), work_queue(other)
    bus = await bus_site.join(both, one, none)
    recorders = {queue.name: Recorder() for queue in (both, one, none)}
    for queue in (both, one, none):
        await bus.consume(queue, recorders[queue.name], slots=2)
    first, second = released(node), released(other)

    await bus.publish(first, soon())
    await bus.publish(second, soon())

    await eventually(lambda: sum(len(r.events) for r in recorders.values()) == 4, within=10)
    assert sorted(recorders[both.name].ids) == sorted([first.id, second.id])
    assert recorders[one.name].ids == [first.id]
    assert recorders[none.name].ids == [second.id]


async def test_events_wait_for_a_consumer_that_starts_later(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    event = released(node)
    await bus.publish(event, soon())
    recorder = Recorder()

    await (await bus_site.join(queue)).consume(queue, recorder, slots=1)

    await eventually(lambda: recorder.ids == [event.id], within=10)


async def test_an_event_that_nobody_would_receive_is_refused(bus_site: Site) -> None:
    node = unique("node")
    bus = await bus_site.join(work_queue(node))

    with pytest.raises(UndeliverableError, match=agent_key("elsewhere")):
        await bus.publish(released("elsewhere"), soon())


async def test_of_two_undeliverable_publishes_at_once_none_is_reported_as_taken(
    bus_site: Site,
) -> None:
    bus = await bus_site.join()
    event = released(unique("node"))

    outcomes = await asyncio.gather(
        *(bus.publish(event, soon()) for _ in range(5)), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [UndeliverableError] * 5


async def test_an_oversized_event_is_refused_before_it_is_sent(bus_site: Site) -> None:
    bus = await bus_site.join()
    layer = LayerProgress(digest=f"sha256:{'c' * 64}", done=0, total=0)
    event = PullProgressed(
        correlation_id="p", key="k", attempt=1, stage=State.PULLING, layers=(layer,)
    )
    too_many = event.model_copy(update={"layers": (layer,) * (MAX_EVENT_BYTES // 80)})

    with pytest.raises(OversizedEventError, match=r"pull\.progressed takes"):
        await bus.publish(too_many, soon())


async def test_no_more_handlers_run_at_once_than_there_are_slots(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = BlockedRecorder()
    await bus.consume(queue, recorder, slots=3)
    events = [released(node, str(number)) for number in range(8)]
    for event in events:
        await bus.publish(event, soon())

    await eventually(lambda: recorder.held == 3, within=10)
    recorder.release.set()

    await eventually(lambda: len(recorder.events) == 8, within=10)
    assert recorder.most_held == 3
    assert sorted(recorder.ids) == sorted(event.id for event in events)


async def test_consumers_compete(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    workers = [BlockedRecorder(), BlockedRecorder()]
    for worker in workers:
        await (await bus_site.join(queue)).consume(queue, worker, slots=1)
    events = [released(node, str(number)) for number in range(6)]
    for event in events:
        await bus.publish(event, soon())

    await eventually(lambda: [worker.held for worker in workers] == [1, 1], within=10)
    for worker in workers:
        worker.release.set()

    await eventually(lambda: sum(len(worker.events) for worker in workers) == 6, within=10)
    assert sorted(workers[0].ids + workers[1].ids) == sorted(event.id for event in events)


async def test_an_event_published_twice_arrives_twice(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = Recorder()
    await bus.consume(queue, recorder, slots=2)
    event = released(node)

    await asyncio.gather(bus.publish(event, soon()), bus.publish(event, soon()))

    await eventually(lambda: recorder.ids == [event.id, event.id], within=10)


async def test_stop_lets_a_running_handler_finish_and_takes_no_more(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    worker, successor = BlockedRecorder(), Recorder()
    consumer = await bus.consume(queue, worker, slots=1)
    first, second = released(node, "1"), released(node, "2")
    await bus.publish(first, soon())
    await eventually(lambda: worker.held == 1, within=10)

    stopping = asyncio.create_task(consumer.stop(soon()))
    await bus.publish(second, soon())
    worker.release.set()
    await stopping
    await (await bus_site.join(queue)).consume(queue, successor, slots=1)

    await eventually(lambda: successor.events, within=10)
    assert worker.ids == [first.id]
    assert successor.ids == [second.id]


async def test_stop_cancels_what_is_late_and_another_worker_gets_it(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    worker, successor = BlockedRecorder(), Recorder()
    consumer = await bus.consume(queue, worker, slots=2)
    events = [released(node, str(number)) for number in range(4)]
    for event in events:
        await bus.publish(event, soon())
    await eventually(lambda: worker.held == 2, within=10)

    await consumer.stop(Deadline.after(0.05))

    assert worker.cancelled == 2
    assert worker.held == 0
    await (await bus_site.join(queue)).consume(queue, successor, slots=1)
    await eventually(lambda: len(successor.events) == 4, within=10)
    assert sorted(successor.ids) == sorted(event.id for event in events)


async def test_a_cancelled_stop_is_cancelled_and_leaves_nothing_running(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    worker = BlockedRecorder()
    consumer = await bus.consume(queue, worker, slots=1)
    await bus.publish(released(node), soon())
    await eventually(lambda: worker.held == 1, within=10)

    stopping = asyncio.create_task(consumer.stop(Deadline.after(60)))
    await asyncio.sleep(0)
    stopping.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, 10)
    assert worker.held == 0


async def test_an_agent_queue_lives_as_long_as_its_agent(bus_site: Site) -> None:
    node, everybody = unique("node"), unique("all")
    keys = (agent_key(node), agent_key(everybody))
    queue = AgentQueue(unique("agent"), keys, expires_seconds=1.0)
    gateway, agent = await bus_site.join(), await bus_site.join()
    with pytest.raises(UndeliverableError):
        await gateway.publish(released(node), soon())
    recorder = Recorder()

    consumer = await agent.consume(queue, recorder, slots=1)
    events = [released(node), released(everybody)]
    for event in events:
        await gateway.publish(event, soon())
    await eventually(lambda: sorted(recorder.ids) == sorted(e.id for e in events), within=10)
    await consumer.stop(soon())

    async def refused() -> bool:
        try:
            await gateway.publish(released(node), soon())
        except UndeliverableError:
            return True
        return False

    await eventually(refused, within=15)
    assert len(recorder.events) == 2


async def test_handlers_run_in_the_context_of_who_subscribed(bus_site: Site) -> None:
    service: contextvars.ContextVar[str] = contextvars.ContextVar("service", default="nobody")
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    seen: list[str] = []

    async def handler(_: AnyEvent) -> None:
        seen.append(service.get())
        service.set("handler")

    service.set("converter")
    await bus.consume(queue, handler, slots=1)
    service.set("gateway")
    for number in range(2):
        await bus.publish(released(node, str(number)), soon())

    await eventually(lambda: len(seen) == 2, within=10)
    assert seen == ["converter", "converter"]


async def test_a_closed_bus_takes_nothing_and_runs_nothing(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    worker = BlockedRecorder()
    await bus.consume(queue, worker, slots=1)
    await bus.publish(released(node), soon())
    await eventually(lambda: worker.held == 1, within=10)

    await bus.close()

    assert worker.cancelled == 1
    assert not bus.connected
    with pytest.raises(BusUnavailableError):
        await bus.publish(released(node), soon())
