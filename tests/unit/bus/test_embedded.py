"""What only the embedded bus does: bounds in memory instead of a broker's disk."""

import pytest

from shared.bus.delivery import letter_id
from shared.bus.embedded import MAX_DEAD_LETTERS, MAX_QUEUE_LENGTH, EmbeddedBus
from shared.bus.interface import WorkQueue
from shared.errors import BusUnavailableError
from shared.events import AnyEvent, MalformedEventError
from tests.support.bus import Recorder, released, soon, work_queue
from tests.support.conditions import eventually


async def opened(*queues: WorkQueue) -> EmbeddedBus:
    bus = EmbeddedBus(queues)
    await bus.open(soon())
    return bus


async def test_a_full_queue_refuses_for_all_until_it_is_drained() -> None:
    full, empty = work_queue("n1"), work_queue("n1", "n2")
    bus = await opened(full, empty)
    recorder = Recorder()
    drained = await bus.consume(empty, recorder, slots=1)
    for number in range(MAX_QUEUE_LENGTH):
        await bus.publish(released("n1", str(number)), soon())
    await eventually(lambda: len(recorder.events) == MAX_QUEUE_LENGTH, within=20)

    with pytest.raises(BusUnavailableError, match=full.name):
        await bus.publish(released("n1"), soon())

    # Neither queue took it: a publish is taken by all that are bound, or by none.
    await bus.publish(released("n2", "last"), soon())
    await eventually(lambda: len(recorder.events) == MAX_QUEUE_LENGTH + 1, within=10)
    await drained.stop(soon())
    await bus.consume(full, Recorder(), slots=1)

    async def accepted() -> bool:
        try:
            await bus.publish(released("n1"), soon())
        except BusUnavailableError:
            return False
        return True

    await eventually(accepted, within=20)
    await bus.close()


async def test_only_the_latest_dead_letters_are_kept() -> None:
    queue = work_queue("n1")
    bus = await opened(queue)

    async def refuse(_: AnyEvent) -> None:
        raise MalformedEventError("not for us")

    await bus.consume(queue, refuse, slots=1)
    events = [released("n1", str(number)) for number in range(MAX_DEAD_LETTERS + 2)]
    for event in events:
        await bus.publish(event, soon())

    async def dead() -> list[str]:
        return [letter.id for letter in (await bus.dead_letters(2 * MAX_DEAD_LETTERS)).items]

    async def last_is_dead() -> bool:
        return events[-1].id in await dead()

    await eventually(last_is_dead, within=20)
    assert await dead() == [event.id for event in events[2:]]
    await bus.close()


async def test_it_takes_nothing_before_it_is_open() -> None:
    bus = EmbeddedBus([work_queue("n1")])

    assert not bus.connected
    with pytest.raises(BusUnavailableError):
        await bus.publish(released("n1"), soon())


def test_a_letter_without_an_id_is_named_by_its_content() -> None:
    assert letter_id("given", b"x") == "given"
    assert letter_id(None, b"x") == letter_id(None, b"x") != letter_id(None, b"y")
