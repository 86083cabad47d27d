"""What gateways answer to distributors that ask whether an image may go, over real catalogs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pymongo
import pytest

from services.gateway.held import Held
from services.gateway.readers import ReadersBook
from services.gateway.removals import Removals
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import distributor_queue
from shared.catalog.interface import Catalog, Where
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.events import ImageExpired, ImageExpireRequested, RemovalDecided, RemovalProposed
from shared.states import State
from tests.support.bus import Recorder
from tests.support.catalogs import opened
from tests.support.conditions import eventually
from tests.support.lifecycle import SYSTEM, announce, image, release, store, stored
from tests.support.recipes import small_recipe

MARK = "0" * 32


class Site:
    """A gateway's part, and the distributor's queue."""

    def __init__(self, catalog: Catalog, bus: EmbeddedBus, heard: Recorder) -> None:
        self.removals = Removals(
            catalog, bus, Held(catalog), ReadersBook(catalog, 10), timeout=10, publish_timeout=10
        )
        self._bus = bus
        self._heard = heard

    async def asked(self, letter: str = "a") -> str:
        before = len(self._heard.events)
        proposal = RemovalProposed(
            correlation_id="x", system=SYSTEM, image_id=letter * 64, mark=MARK
        )
        await self.removals.on_proposed(proposal)
        # Whatever was published before this one is heard before it.
        end = ImageExpireRequested(correlation_id="end", system=SYSTEM, image_id="f" * 64)
        await self._bus.publish(end, Deadline.after(5))
        await eventually(lambda: end.id in self._heard.ids, within=5)
        *decided, _ = self._heard.events[before:]
        if not decided:
            return "later"
        [event] = decided
        assert isinstance(event, RemovalDecided)
        assert (event.image_id, event.mark) == (letter * 64, MARK)
        return "remove" if event.remove else "stay"


@pytest.fixture
async def site(catalog: Catalog) -> AsyncIterator[Site]:
    bus = EmbeddedBus([distributor_queue(SYSTEM)])
    await bus.open(Deadline.after(5))
    heard = Recorder()
    await bus.consume(distributor_queue(SYSTEM), heard, slots=1)
    yield Site(catalog, bus, heard)
    await bus.close()


def leaving(name: str, letter: str = "a") -> ImageRecord:
    return image(name, state=State.EXPIRING, leaving=letter * 64).but(current=None, image_id=None)


async def test_nobody_wants_it(site: Site, catalog: Catalog) -> None:
    await store(catalog, image("other", "b"), leaving("debian"))
    assert await site.asked() == "remove"
    assert (await stored(catalog)).state is State.EXPIRING, "until it is gone"
    await site.removals.on_expired(
        ImageExpired(correlation_id="x", system=SYSTEM, image_id="a" * 64)
    )
    record = await stored(catalog)
    assert (record.state, record.leaving) == (State.EXPIRED, None)


@pytest.mark.parametrize("state", [State.READY, State.INIT, State.FAILURE])
async def test_a_reference_of_anybody_keeps_it(site: Site, catalog: Catalog, state: State) -> None:
    await store(catalog, leaving("debian"), image("private", owner=1000, state=state))
    assert await site.asked() == "stay"
    assert (await stored(catalog)).state is State.EXPIRED, (
        "others keep it, this one is done with it"
    )


async def test_another_system_s_reference_does_not(site: Site, catalog: Catalog) -> None:
    await store(catalog, image(system="elsewhere"))
    assert await site.asked() == "remove"


async def test_one_that_is_about_to_stand_for_it_is_waited_for(
    site: Site, catalog: Catalog
) -> None:
    placing = image("other", "b", state=State.TRANSFER, recipe=small_recipe("a"))
    await store(catalog, leaving("debian"), placing)
    assert await site.asked() == "later"
    await store(catalog, placing.but(state=State.FAILURE, recipe=None))
    assert await site.asked() == "remove"


async def test_a_job_keeps_it_until_it_is_released(site: Site, catalog: Catalog) -> None:
    await store(catalog, leaving("debian"))
    await announce(catalog, "17", "b", "a")
    assert await site.asked() == "later"
    await release(catalog, "17")
    assert await site.asked() == "remove"


async def test_a_placement_that_ends_between_the_questions_is_seen(
    site: Site, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands for the image by the time of the second question, which is why that is second."""
    placing = image("other", "b", state=State.TRANSFER, recipe=small_recipe("a"))
    await store(catalog, placing)
    find = catalog.images.find

    async def found(where: Where, *, after: str | None = None, limit: int) -> list[ImageRecord]:
        records = await find(where, after=after, limit=limit)
        await store(catalog, image("other"))
        return records

    monkeypatch.setattr(catalog.images, "find", found)
    assert await site.asked() in {"later", "stay"}


async def test_jobs_are_read_once_for_all_who_ask_at_the_same_time(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(catalog_url) as catalog:
        await announce(catalog, "17", "a")
        held = Held(catalog)
        read = held._read
        readings = 0

        async def counted(system: str) -> frozenset[str]:
            nonlocal readings
            readings += 1
            return await read(system)

        monkeypatch.setattr(held, "_read", counted)
        many = await asyncio.gather(*(held.images(SYSTEM) for _ in range(20)))
        assert set(many) == {frozenset({"a" * 64})}
        assert readings <= 2
        await announce(catalog, "18", "b")
        assert await held.images(SYSTEM) == {"a" * 64, "b" * 64}, "never older than the question"
        before = readings
        await held.images(SYSTEM, at_most_old=60)
        assert readings == before


async def test_a_job_that_an_earlier_version_released_holds_nothing(
    catalog: Catalog, catalog_url: str
) -> None:
    await announce(catalog, "ended", "a")
    await release(catalog, "ended")
    await announce(catalog, "running", "b")
    if catalog_url.startswith("mongodb:"):
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient(catalog_url) as client:
            # That version had no index for the end of jobs.
            jobs: Any = client.get_default_database()["jobs"]
            jobs.update_many({}, {"$unset": {"by.released_at": ""}})
    assert await Held(catalog).images(SYSTEM) == {"b" * 64}


async def test_a_catalog_that_is_away_decides_nothing(site: Site, catalog: Catalog) -> None:
    await store(catalog, leaving("debian"))
    await catalog.close()
    assert await site.asked() == "later"
