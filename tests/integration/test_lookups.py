"""What is answered from memory is never what somebody may not see, or what is old."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.gateway import feed as feed_module
from services.gateway.auth.identity import Principal
from services.gateway.feed import FRESH_SECONDS, ChangeFeed, TooManyFollowersError
from services.gateway.images import not_ready
from services.gateway.lookups import Lookups, Renderings
from services.gateway.views import image_view
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError
from shared.states import State
from tests.support.catalogs import opened, put, soon
from tests.support.conditions import eventually
from tests.support.lifecycle import ADA, BOB, NOBODY, SYSTEM, image, target

SOON = 5.0


@asynccontextmanager
async def gateway_of(catalog: Catalog) -> AsyncIterator[tuple[ChangeFeed, Lookups]]:
    feed = ChangeFeed(catalog)
    await feed.start()
    try:
        yield feed, Lookups(catalog, feed)
    finally:
        await feed.stop()


async def stored(catalog: Catalog, record: ImageRecord) -> ImageRecord:
    found = await catalog.images.change(record.key, put(record), soon())
    assert found is not None
    return found


async def owner_of(lookups: Lookups, who: Principal, name: str = "debian") -> int | str | None:
    found = await lookups.image(who, target(name))
    return "nothing" if found is None else found[0].owner


async def test_ones_own_comes_first_then_the_sites_then_what_is_shared(catalog: Catalog) -> None:
    await stored(catalog, image("debian", "a"))
    await stored(catalog, image("debian", "b", owner=1000, allowed_uids=(2000,)))
    await stored(catalog, image("fedora", "c", owner=1000, allowed_uids=(2000,)))
    async with gateway_of(catalog) as (_, lookups):
        assert await owner_of(lookups, ADA) == 1000
        assert await owner_of(lookups, BOB) is None
        assert await owner_of(lookups, NOBODY) is None
        assert await owner_of(lookups, BOB, "fedora") == 1000
        assert await owner_of(lookups, NOBODY, "fedora") == "nothing"


async def test_what_this_gateway_changes_is_answered_at_once(catalog: Catalog) -> None:
    async with gateway_of(catalog) as (_, lookups):
        record = await stored(catalog, image("debian", "a"))
        assert await owner_of(lookups, NOBODY) is None
        await stored(catalog, record.but(private=True, owner=1000))
        assert await owner_of(lookups, NOBODY) == "nothing"
        hidden = await lookups.page(NOBODY, [SYSTEM], None, 10)
        assert hidden == ([], None)


async def test_a_record_is_decided_upon_as_it_was_read(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory may be a moment behind; what is read on the way tells better."""
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(feed_module, "FRESH_SECONDS", 3600.0)
    async with opened(catalog_url) as one, opened(catalog_url) as other:
        record = await stored(other, image("secret", "a", owner=1000, allowed_uids=(2000,)))
        async with gateway_of(one) as (feed, lookups):
            await stored(other, record.but(allowed_uids=()))
            assert feed.directory.version(record.key) == 1, "it has not heard of it"
            assert await owner_of(lookups, BOB, "secret") == "nothing"
            assert await owner_of(lookups, ADA, "secret") == 1000


async def test_late_polls_make_askers_wait_and_a_dead_catalog_answers_nothing(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(feed_module, "FRESH_SECONDS", 0.05)
    async with opened(catalog_url) as other:
        record = await stored(other, image("debian", "a"))
        async with opened(catalog_url) as one, gateway_of(one) as (feed, lookups):
            assert await owner_of(lookups, NOBODY) is None
            await stored(other, record.but(current=None, state=State.EXPIRED))
            await eventually(lambda: not feed.is_fresh, within=SOON)
            assert await owner_of(lookups, NOBODY) == "nothing"
            await one.close()
            await eventually(lambda: not feed.is_fresh, within=SOON)
            with pytest.raises(CatalogUnavailableError):
                await lookups.image(NOBODY, target("debian"))
    assert FRESH_SECONDS <= 1.0, "what the documents promise"


async def test_pages_hold_what_one_may_use_and_nothing_between(catalog: Catalog) -> None:
    for number in range(30):
        owner = None if number % 3 else 1000
        await stored(catalog, image(f"n{number:02}", "a", owner=owner))
    async with gateway_of(catalog) as (_, lookups):
        for who, expected in ((NOBODY, 20), (ADA, 30)):
            seen: list[str] = []
            after: str | None = None
            while True:
                page, after = await lookups.page(who, [SYSTEM], after, 7)
                assert len(page) == 7 or after is None
                seen += [entry.key for entry, _ in page]
                if after is None:
                    break
            assert len(seen) == expected
            assert seen == sorted(set(seen))


def test_renderings_are_bounded_by_bytes() -> None:
    kept = Renderings(image_view, most_bytes=20_000)
    for number in range(200):
        assert kept.render(image(f"n{number}")) is not None
    assert 0 < kept.size <= 20_000
    assert 0 < len(kept) < 30


async def test_followers_wake_for_each_change_and_are_bounded(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FOLLOWERS_AT_ONCE", 2)
    record = await stored(catalog, image("debian", state=State.PULLING))
    async with gateway_of(catalog) as (feed, _):
        async with (
            aclosing(feed.follow(record.key, Deadline.after(SOON))) as one,
            aclosing(feed.follow(record.key, Deadline.after(SOON))) as other,
        ):
            assert (await anext(one)).version == (await anext(other)).version == 1
            with pytest.raises(TooManyFollowersError):
                await anext(feed.follow(record.key, Deadline.after(SOON)))
            # What the queue's followers share is there for those who may follow all the same.
            async with aclosing(feed.queue_changes(Deadline.after(SOON))) as changes:
                await anext(changes)
            waiting = asyncio.gather(anext(one), anext(other))
            await stored(catalog, record.but(state=State.TRANSFER))
            assert [each.version for each in await waiting] == [2, 2]
        async with aclosing(feed.follow(record.key, Deadline.after(SOON))) as again:
            await anext(again)


async def test_a_lookup_tells_whose_it_is_and_how_long_it_stays(catalog: Catalog) -> None:
    private = image("debian", "a", owner=1000, private=True)
    record = await stored(catalog, private)
    async with gateway_of(catalog) as (feed, lookups):

        async def told() -> tuple[str, dict[str, Any]]:
            found = await lookups.image(ADA, target("debian"))
            assert found is not None
            return found[1].etag, json.loads(found[1].body)

        etag, said = await told()
        assert (said["owner"], said["pinned"]) == (1000, False)
        at = record.last_pull + timedelta(days=1)
        record = await stored(catalog, record.but(last_used=at, expires_at=at, pinned=True))
        await eventually(lambda: feed.directory.version(record.key) == record.version, within=SOON)
        newer, said = await told()
        assert newer != etag
        assert datetime.fromisoformat(said["last_used"]) == at
        assert datetime.fromisoformat(said["expires_at"]) == at
        assert said["pinned"]


def test_what_is_public_shows_no_owner() -> None:
    shown = image_view(image("debian", owner=1000, private=False))
    assert shown is not None
    assert shown.owner is None


@pytest.mark.parametrize("state", [State.EXPIRING, State.EXPIRED])
def test_what_is_gone_may_have_been_removed(state: State) -> None:
    gone = image("debian", state=state).but(current=None, image_id=None)
    assert "(it was removed or has expired)" in not_ready(target("debian"), gone).message
