"""What every bus does with events that nobody can digest, asked of both adapters alike."""

import asyncio
from collections.abc import Sequence

from shared.bus.interface import DELIVERY_LIMIT, AgentQueue, Bus, DeadLetter, Letters
from shared.events import (
    MalformedEventError,
    agent_key,
)
from tests.support.bus import (
    FailingRecorder,
    Recorder,
    released,
    soon,
    unique,
    work_queue,
)
from tests.support.bus_sites import Site
from tests.support.conditions import eventually


async def letters_of(bus: Bus, queue: str) -> Sequence[DeadLetter]:
    return [letter for letter in (await bus.dead_letters(200)).items if letter.queue == queue]


async def replayed(bus: Bus, letter_id: str) -> bool:
    return bool((await bus.replay(Letters(ids=frozenset({letter_id})), soon())).sent)


async def test_an_event_whose_handler_raises_comes_again(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = FailingRecorder([RuntimeError("first"), OSError("second")])
    await bus.consume(queue, recorder, slots=1)
    event, next_event = released(node, "1"), released(node, "2")
    await bus.publish(event, soon())

    await eventually(lambda: len(recorder.events) == 3, within=10)
    await bus.publish(next_event, soon())

    await eventually(lambda: next_event.id in recorder.ids, within=10)
    assert recorder.ids == [event.id] * 3 + [next_event.id]
    assert not await letters_of(bus, queue.name)


async def test_a_cancellation_inside_the_handler_is_a_failure_like_any_other(
    bus_site: Site,
) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = FailingRecorder([asyncio.CancelledError()])
    await bus.consume(queue, recorder, slots=1)
    event = released(node)
    await bus.publish(event, soon())

    await eventually(lambda: recorder.ids == [event.id, event.id], within=10)


async def test_an_event_that_always_fails_dies_and_can_be_replayed(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = FailingRecorder(RuntimeError("no") for _ in range(DELIVERY_LIMIT + 1))
    await bus.consume(queue, recorder, slots=1)
    event = released(node)
    await bus.publish(event, soon())

    await eventually(lambda: letters_of(bus, queue.name), within=15)
    for _ in range(3):  # looking does not remove
        (letter,) = await letters_of(bus, queue.name)
    assert letter.id == event.id
    assert letter.reason == "delivery_limit"
    assert letter.deliveries == DELIVERY_LIMIT + 1 == len(recorder.events)
    assert letter.died_at is not None
    assert type(event).model_validate_json(letter.body) == event
    assert (await bus.dead_letters(0)).items == ()

    assert await replayed(bus, event.id)
    await eventually(lambda: len(recorder.events) == DELIVERY_LIMIT + 2, within=10)
    assert not await letters_of(bus, queue.name)
    assert not await replayed(bus, event.id)


async def test_a_replayed_event_that_fails_again_dies_again(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = FailingRecorder(RuntimeError("no") for _ in range(100))
    await bus.consume(queue, recorder, slots=1)
    event = released(node)
    await bus.publish(event, soon())
    await eventually(lambda: letters_of(bus, queue.name), within=15)

    assert await replayed(bus, event.id)

    await eventually(lambda: len(recorder.events) == 2 * (DELIVERY_LIMIT + 1), within=15)
    (letter,) = await eventually(lambda: letters_of(bus, queue.name), within=15)
    assert letter.queue == queue.name


async def test_a_message_that_is_no_event_goes_to_the_dead_letters_alone(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = Recorder()
    await bus.consume(queue, recorder, slots=1)
    body = b'{"type": "job.released", "v": 99} \xff' + node.encode()

    await bus_site.inject(queue, body)
    event = released(node)
    await bus.publish(event, soon())

    await eventually(lambda: recorder.ids == [event.id], within=10)
    (letter,) = await eventually(lambda: letters_of(bus, queue.name), within=10)
    assert letter.reason == "rejected"
    assert letter.deliveries == 1
    assert letter.body == body.decode(errors="replace")
    assert await replayed(bus, letter.id)
    (again,) = await eventually(lambda: letters_of(bus, queue.name), within=10)
    assert again.id == letter.id


async def test_an_event_of_the_wrong_type_is_not_tried_again(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    recorder = FailingRecorder([MalformedEventError("does not belong here")])
    await bus.consume(queue, recorder, slots=1)
    event = released(node)
    await bus.publish(event, soon())

    (letter,) = await eventually(lambda: letters_of(bus, queue.name), within=10)
    assert (letter.id, letter.reason, letter.deliveries) == (event.id, "rejected", 1)
    assert recorder.ids == [event.id]


async def test_an_agents_failing_event_dies_too(bus_site: Site) -> None:
    node = unique("node")
    queue = AgentQueue(unique("agent"), (agent_key(node),))
    bus = await bus_site.join()
    recorder = FailingRecorder(RuntimeError("no") for _ in range(100))
    await bus.consume(queue, recorder, slots=1)
    event = released(node)
    await bus.publish(event, soon())

    (letter,) = await eventually(lambda: letters_of(bus, queue.name), within=15)
    assert letter.id == event.id
    assert len(recorder.events) == DELIVERY_LIMIT + 1
