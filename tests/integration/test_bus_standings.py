"""How queues stand and what operators do with many dead letters, asked of both buses alike."""

import pytest

from shared.bus.interface import AgentQueue, Bus, Letters, QueueDepth, WorkQueue
from shared.bus.rabbitmq_dead import TOGETHER
from shared.errors import BusUnavailableError, UndeliverableError
from shared.events import AnyEvent, MalformedEventError, agent_key
from tests.support.bus import BlockedRecorder, Recorder, released, soon, unique, work_queue
from tests.support.bus_sites import EmbeddedSite, Site
from tests.support.conditions import eventually


class Refuser(Recorder):
    """Lets every event die at once, until it is told to take them."""

    def __init__(self) -> None:
        super().__init__()
        self.taking = False

    async def __call__(self, event: AnyEvent) -> None:
        await super().__call__(event)
        if not self.taking:
            raise MalformedEventError("not for us")


async def depth(bus: Bus, queue: WorkQueue) -> QueueDepth:
    [found] = [each for each in (await bus.standings(soon())).queues if each.name == queue.name]
    return found


async def counted(bus: Bus, letters: int) -> bool:
    return (await bus.standings(soon())).dead_letters == letters


async def letters(bus: Bus, queue: str) -> list[str]:
    found = await bus.dead_letters(1000)
    return sorted(letter.id for letter in found.items if letter.queue == queue)


async def died(bus: Bus, queue: WorkQueue, node: str, count: int) -> list[str]:
    """The ids of that many events, sorted, once all of them are dead letters."""
    events = [released(node, str(number)) for number in range(count)]
    for event in events:
        await bus.publish(event, soon())
    ids = sorted(event.id for event in events)

    async def all_dead() -> bool:
        return await letters(bus, queue.name) == ids

    await eventually(all_dead, within=15)
    return ids


async def test_queues_tell_what_waits_and_who_takes(bus_site: Site) -> None:
    node, other = unique("node"), unique("node")
    queue, idle = work_queue(node), work_queue(other)
    bus = await bus_site.join(queue, idle)
    for number in range(3):
        await bus.publish(released(node, str(number)), soon())

    async def stands(waiting: int, consumers: int) -> bool:
        return await depth(bus, queue) == QueueDepth(queue.name, waiting, consumers)

    await eventually(lambda: stands(3, 0), within=10)
    recorder = BlockedRecorder()
    worker = await (await bus_site.join(queue)).consume(queue, recorder, slots=2)
    await eventually(lambda: stands(1, 1), within=10)
    recorder.release.set()
    await eventually(lambda: stands(0, 1), within=10)
    await worker.stop(soon())
    await eventually(lambda: stands(0, 0), within=10)
    assert [each.name for each in (await bus.standings(soon())).queues] == [queue.name, idle.name]
    # Looking has disturbed nobody.
    await bus.publish(released(node), soon())
    await eventually(lambda: stands(1, 0), within=10)


async def test_many_letters_are_replayed_in_one_pass(bus_site: Site) -> None:
    node, other = unique("node"), unique("node")
    queue, beside = work_queue(node), work_queue(other)
    bus = await bus_site.join(queue, beside)
    refuser = Refuser()
    await bus.consume(queue, refuser, slots=16)
    await bus.consume(beside, refuser, slots=1)
    ids = await died(bus, queue, node, TOGETHER + 6)
    kept = await died(bus, beside, other, 2)
    refuser.taking = True
    refuser.events.clear()
    before = (await bus.dead_letters(0)).total

    done = await bus.replay(Letters(queue=queue.name), soon())

    assert sorted(done.sent) == [(each, queue.name) for each in ids]
    assert done.left == before - len(ids)
    await eventually(lambda: len(refuser.ids) == len(ids), within=10)
    assert sorted(refuser.ids) == ids
    assert await letters(bus, queue.name) == []
    assert await letters(bus, beside.name) == kept
    assert (await bus.dead_letters(0)).total == done.left
    await eventually(lambda: counted(bus, done.left), within=10)

    done = await bus.replay(Letters(ids=frozenset({kept[0], "unheard-of"})), soon())
    assert done.sent == ((kept[0], beside.name),)
    assert await letters(bus, beside.name) == [kept[1]]
    done = await bus.replay(Letters(), soon())
    assert (kept[1], beside.name) in done.sent


async def test_what_dies_again_is_taken_once(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    refuser = Refuser()
    await bus.consume(queue, refuser, slots=4)
    ids = await died(bus, queue, node, TOGETHER + 1)

    done = await bus.replay(Letters(queue=queue.name), soon())

    assert sorted(letter for letter, _ in done.sent) == ids
    await eventually(lambda: len(refuser.ids) == 2 * len(ids), within=10)

    async def all_dead_again() -> bool:
        return await letters(bus, queue.name) == ids

    await eventually(all_dead_again, within=10)
    assert len(refuser.ids) == 2 * len(ids)


async def test_one_letter_is_discarded_and_no_other(bus_site: Site) -> None:
    node = unique("node")
    queue = work_queue(node)
    bus = await bus_site.join(queue)
    await bus.consume(queue, Refuser(), slots=1)
    first, second = await died(bus, queue, node, 2)

    assert await bus.discard(first, soon()) == queue.name

    assert await letters(bus, queue.name) == [second]
    assert await bus.discard(first, soon()) is None


async def test_a_letter_whose_queue_is_gone_stays_and_holds_up_no_other(bus_site: Site) -> None:
    node, other = unique("node"), unique("node")
    queue = work_queue(node)
    gone = AgentQueue(unique("agent"), (agent_key(other), agent_key(node)), expires_seconds=1)
    bus = await bus_site.join(queue)
    refuser = Refuser()
    await bus.consume(queue, refuser, slots=1)
    agent = await bus.consume(gone, refuser, slots=1)
    event = released(node)  # it dies in both queues: two letters of one id
    await bus.publish(event, soon())

    async def both_dead() -> bool:
        return await letters(bus, queue.name) == await letters(bus, gone.name) == [event.id]

    await eventually(both_dead, within=10)
    await agent.stop(soon())
    refuser.taking = True

    async def nobody_there() -> bool:
        """The broker needs a moment to notice that nobody uses the queue."""
        try:
            await bus.publish(released(other), soon())
        except UndeliverableError:
            return True
        return False

    await eventually(nobody_there, within=15)
    done = await bus.replay(Letters(), soon())

    assert (event.id, queue.name) in done.sent
    assert gone.name in done.homeless
    assert await letters(bus, queue.name) == []
    assert await letters(bus, gone.name) == [event.id]
    assert await bus.discard(event.id, soon()) == gone.name


async def test_a_bus_that_is_not_there_says_so() -> None:
    site = EmbeddedSite()
    bus = await site.join(work_queue("n1"))
    await site.close()

    with pytest.raises(BusUnavailableError):
        await bus.standings(soon())
