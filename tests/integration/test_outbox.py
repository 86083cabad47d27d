"""The relay from the outbox to the bus: nothing that was stored stays unpublished."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.gateway import outbox
from services.gateway.outbox import OutboxRelay
from shared.bus.embedded import EmbeddedBus
from shared.bus.interface import WorkQueue
from shared.catalog.interface import Catalog
from shared.deadline import Deadline
from shared.events import Event, ImageExpireRequested, agent_key
from shared.models import utcnow
from tests.support.bus import Recorder
from tests.support.catalogs import count_up, opened, released
from tests.support.conditions import eventually

QUEUE = WorkQueue("agent.work", (agent_key("nid00001"),))


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        yield catalog


@pytest.fixture
async def bus() -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus([QUEUE])
    await bus.open(Deadline.after(5))
    yield bus
    await bus.close()


class Undeliverable:
    """Notes what could not be delivered, and answers whether that was its end."""

    def __init__(self, *, final: bool) -> None:
        self.events: list[str] = []
        self._final = final

    async def __call__(self, event: Event) -> bool:
        self.events.append(event.id)
        return self._final


class CountingBus(EmbeddedBus):
    """Counts how often somebody tried to publish."""

    attempts = 0

    async def publish(self, event: Event, deadline: Deadline) -> None:
        self.attempts += 1
        await super().publish(event, deadline)


async def store(catalog: Catalog, event: Event) -> None:
    await catalog.nodes.change("node", count_up("node", event), Deadline.after(5))


async def unsettled(catalog: Catalog) -> int:
    return len(await catalog.pending(utcnow(), 100))


def relay_of(catalog: Catalog, bus: EmbeddedBus, undeliverable: Undeliverable) -> OutboxRelay:
    return OutboxRelay(catalog, bus, 5.0, undeliverable)


async def settled(catalog: Catalog) -> bool:
    return await unsettled(catalog) == 0


async def test_what_a_crash_left_behind_goes_out_at_the_next_start(
    catalog: Catalog, bus: EmbeddedBus
) -> None:
    event = released("1")
    await store(catalog, event)  # and then the gateway died
    assert await unsettled(catalog) == 1
    recorder = Recorder()
    await bus.consume(QUEUE, recorder, slots=1)
    relay = relay_of(catalog, bus, Undeliverable(final=False))
    relay.start()
    try:
        await eventually(lambda: recorder.ids == [event.id], within=5)
        await eventually(lambda: settled(catalog), within=5)
    finally:
        await relay.stop()


async def test_a_change_of_ours_goes_out_at_once(catalog: Catalog, bus: EmbeddedBus) -> None:
    recorder = Recorder()
    await bus.consume(QUEUE, recorder, slots=1)
    relay = relay_of(catalog, bus, Undeliverable(final=False))
    relay.start()
    try:
        await eventually(lambda: settled(catalog), within=5)
        event = released("2")
        await store(catalog, event)
        # Long before any sweep would look again.
        await eventually(lambda: recorder.ids == [event.id], within=2)
    finally:
        await relay.stop()


@pytest.mark.parametrize("final", [True, False])
async def test_an_event_that_nobody_can_take_is_reported(
    final: bool, catalog: Catalog, bus: EmbeddedBus
) -> None:
    undeliverable = Undeliverable(final=final)
    relay = relay_of(catalog, bus, undeliverable)
    relay.start()
    try:
        event = released("3").model_copy(update={"node": "elsewhere"})
        await store(catalog, event)
        await eventually(lambda: undeliverable.events == [event.id], within=5)
        if final:
            await eventually(lambda: settled(catalog), within=5)
    finally:
        await relay.stop()
    assert await unsettled(catalog) == (0 if final else 1), "kept until somebody takes it"


async def test_a_bus_that_is_down_keeps_the_event_in_the_outbox(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEFT_BEHIND_SECONDS", 0.1)
    bus = CountingBus([QUEUE])  # not opened yet
    relay = relay_of(catalog, bus, Undeliverable(final=False))
    relay.start()
    try:
        event = released("4")
        await store(catalog, event)
        await eventually(lambda: bus.attempts >= 3, within=5)
        assert await unsettled(catalog) == 1
        await bus.open(Deadline.after(5))
        recorder = Recorder()
        await bus.consume(QUEUE, recorder, slots=1)
        await eventually(lambda: recorder.ids == [event.id], within=5)
        await eventually(lambda: settled(catalog), within=5)
    finally:
        await relay.stop()
        await bus.close()


async def test_more_than_a_batch_left_behind_goes_out_in_one_go(
    catalog: Catalog, bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 3)
    events = [released(str(number)) for number in range(20)]
    for event in events:
        await store(catalog, event)
    recorder = Recorder()
    await bus.consume(QUEUE, recorder, slots=1)
    relay = relay_of(catalog, bus, Undeliverable(final=False))
    relay.start()
    try:
        # Before the sweep looks a second time.
        await eventually(lambda: len(recorder.ids) == len(events), within=4)
        assert sorted(recorder.ids) == sorted(event.id for event in events)
    finally:
        await relay.stop()


async def test_what_nobody_takes_is_not_tried_without_a_pause(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 3)
    bus = CountingBus([QUEUE])
    await bus.open(Deadline.after(5))
    for number in range(4):
        event = released(str(number)).model_copy(update={"node": "elsewhere"})
        await store(catalog, event)
    relay = relay_of(catalog, bus, Undeliverable(final=False))
    relay.start()
    try:
        await eventually(lambda: relay._left_alone, within=2)  # one sweep, and no second one yet
        assert bus.attempts <= 2 * outbox.BATCH
    finally:
        await relay.stop()
        await bus.close()


def test_what_goes_to_a_system_that_is_no_more_goes_to_nobody() -> None:
    to_cluster = ImageExpireRequested(correlation_id="x", system="cluster", image_id="a" * 64)
    assert outbox.of_no_system(to_cluster, {"other"})
    assert not outbox.of_no_system(to_cluster, {"other", "cluster"})
    assert not outbox.of_no_system(released("1"), {"other"})
