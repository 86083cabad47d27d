"""What gateways say of image directories, and make of their losses, over real catalogs."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest

from services.gateway import inventory
from services.gateway.inventory import Inventory
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import distributor_queue
from shared.catalog.interface import Catalog
from shared.catalog.records import Failure
from shared.events import (
    ImageExpireRequested,
    ImageLost,
    ImageUnchanged,
    InventoryExpected,
    InventoryFound,
    InventoryRequested,
    InventoryUnknown,
    PullRequested,
    RefreshRequested,
)
from shared.models import utcnow
from shared.states import State
from tests.support.bus import Recorder
from tests.support.catalogs import later
from tests.support.conditions import eventually
from tests.support.inventory_site import answering, inventory_bus
from tests.support.lifecycle import SYSTEM, image, store, stored
from tests.support.recipes import digest, small_recipe
from tests.support.transitions import ASK, MACHINE, event_for

OTHER = "other"


@pytest.fixture
async def bus() -> AsyncIterator[EmbeddedBus]:
    async with inventory_bus() as bus:
        yield bus


@pytest.fixture
async def gateway(catalog: Catalog, bus: EmbeddedBus) -> AsyncIterator[Inventory]:
    async with answering(catalog, bus) as gateway:
        yield gateway


def lost_event(letter: str = "a") -> ImageLost:
    return ImageLost(
        correlation_id="x", system=SYSTEM, image_id=letter * 64, as_of=utcnow(), message="no packs"
    )


async def test_what_should_stand_is_told_in_pages(
    gateway: Inventory, catalog: Catalog, bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "PAGE", 3)
    letters = "abcdef0"
    await store(catalog, *(image(f"name{n}", letter) for n, letter in enumerate(letters)))
    gone = image("gone", "9", state=State.EXPIRED).but(current=None, image_id=None)
    elsewhere = image("there", "8", system=OTHER, key=f"{OTHER}/docker/there")
    before = image("first", "7", system="aaa", key="aaa/docker/first")
    await store(catalog, gone, elsewhere, before)
    heard = Recorder()
    await bus.consume(distributor_queue(SYSTEM), heard, slots=1)
    after: str | None = None
    found: list[str] = []
    for _ in range(9):
        seen = len(heard.events)
        await gateway.on_requested(
            InventoryRequested(correlation_id="x", system=SYSTEM, after=after)
        )
        await eventually(partial(heard_more, heard, seen), within=5)
        event = heard.events[-1]
        assert isinstance(event, InventoryExpected)
        assert len(event.images) <= 3
        found += [each.image_id[0] for each in event.images]
        after = event.next
        if after is None:
            break
    assert after is None
    assert sorted(found) == sorted(letters)


async def heard_more(heard: Recorder, seen: int) -> bool:
    return len(heard.events) > seen


async def test_what_nobody_stands_for_is_unknown(
    gateway: Inventory, catalog: Catalog, bus: EmbeddedBus
) -> None:
    heard = Recorder()
    await bus.consume(distributor_queue(SYSTEM), heard, slots=1)
    found = InventoryFound(
        correlation_id="x", system=SYSTEM, images=tuple(letter * 64 for letter in "abc")
    )
    await gateway.on_found(found)  # of an empty catalog: perhaps it is the wrong one
    await store(catalog, image("a", "a"), image("b", "b", system=OTHER, key=f"{OTHER}/b"))
    await gateway.on_found(found)
    await store(catalog, image("c", "c"), image("b", "b"))
    await gateway.on_found(found)  # all known by now
    await gateway.on_requested(InventoryRequested(correlation_id="end", system=SYSTEM))
    await eventually(lambda: isinstance(heard.events[-1], InventoryExpected), within=5)
    [unknown, _] = heard.events
    assert isinstance(unknown, InventoryUnknown)
    assert [each[0] for each in unknown.images] == ["b", "c"]


async def test_a_lost_image_is_found_no_more_and_the_next_pull_makes_it(
    gateway: Inventory, catalog: Catalog
) -> None:
    await store(catalog, image(pinned=True), image("twin", owner=1000), image("other", "b"))
    await gateway.on_lost(lost_event())
    await gateway.on_lost(lost_event())
    for record in (await stored(catalog), await stored(catalog, "twin", 1000)):
        assert (record.state, record.current, record.image_id) == (State.FAILURE, None, None)
        assert record.failure is not None
        assert record.failure.code == "image_lost"
        assert "no packs" in record.failure.message
        assert "pull it again" in record.failure.message
    assert (await stored(catalog)).pinned
    assert (await stored(catalog, "other")).state is State.READY
    events = [each.event for each in await catalog.pending(later(), 10)]
    assert [type(event) for event in events] == [ImageExpireRequested] * 2, "what is left may go"
    again = MACHINE.request(await stored(catalog), ASK, utcnow())
    assert again is not None
    assert [type(event) for event in again.events] == [PullRequested], "no question about freshness"


async def test_what_was_placed_since_is_not_meant(gateway: Inventory, catalog: Catalog) -> None:
    event = lost_event()
    record = image()
    assert record.current is not None
    since = record.current.model_copy(update={"ready_at": event.as_of + timedelta(seconds=1)})
    await store(catalog, record.but(current=since))
    await gateway.on_lost(event)
    assert (await stored(catalog)).state is State.READY


@pytest.mark.parametrize("state", [State.INIT, State.TRANSFER, State.FAILURE])
async def test_what_is_under_way_or_failed_only_loses_what_it_had(
    gateway: Inventory, catalog: Catalog, state: State
) -> None:
    failure = Failure(code="x", message="x") if state is State.FAILURE else None
    recipe = small_recipe("b") if state is State.TRANSFER else None
    await store(catalog, image(state=state, failure=failure, recipe=recipe, due_at=later()))
    await gateway.on_lost(lost_event())
    record = await stored(catalog)
    assert (record.state, record.current, record.failure) == (state, None, failure)


async def test_what_is_lost_while_its_registry_is_asked_is_pulled_at_once(
    gateway: Inventory, catalog: Catalog
) -> None:
    """Nothing is left that could be unchanged, and nobody should wait until that is noticed."""
    asked = MACHINE.request(image(), ASK, utcnow())
    assert asked is not None
    assert [type(event) for event in asked.events] == [RefreshRequested]
    await store(catalog, asked.record.but(version=0))
    await gateway.on_lost(lost_event())
    record = await catalog.images.get(asked.record.key)
    assert record is not None
    answer = event_for(record, ImageUnchanged, reference_digest=digest("a"))
    pulled = MACHINE.unchanged(record, answer, utcnow())
    assert pulled is not None
    assert (pulled.record.state, pulled.record.attempt) == (State.INIT, record.attempt)
    assert [type(event) for event in pulled.events] == [PullRequested]
