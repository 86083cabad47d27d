"""No change is lost between those who read records on their way: follower, directory, caches."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from services.gateway import feed as feed_module
from services.gateway.feed import ChangeFeed
from services.gateway.lookups import Lookups
from services.gateway.shifter.images import WireImages
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.states import State
from tests.support.catalogs import opened
from tests.support.lifecycle import NOBODY, SYSTEM, image, store, stored, target


@pytest.fixture
def polled_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr(feed_module, "FRESH_SECONDS", 3600.0)


@asynccontextmanager
async def fed(catalog: Catalog) -> AsyncIterator[ChangeFeed]:
    feed = ChangeFeed(catalog)
    await feed.start()
    try:
        yield feed
    finally:
        await feed.stop()


async def poll(feed: ChangeFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """One round that begins now."""
    with monkeypatch.context() as late:
        late.setattr(feed_module, "FRESH_SECONDS", 0.0)
        await feed.fresh()


@pytest.mark.usefixtures("polled_by_hand")
async def test_a_follower_hears_what_a_lookup_here_has_seen_first(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(catalog_url) as mine, opened(catalog_url) as others:
        pulled = image(state=State.PULLING).but(current=None, image_id=None)
        await store(others, pulled)
        async with fed(mine) as feed:
            lookups = Lookups(mine, feed)
            async with aclosing(feed.follow(pulled.key, Deadline.after(10))) as versions:
                assert (await anext(versions)).state is State.PULLING
                following = asyncio.ensure_future(anext(versions))
                await store(others, image())
                queued = await lookups.queued(NOBODY, [SYSTEM])
                await lookups.pulls(NOBODY, queued)  # reads the record as it is now
                await poll(feed, monkeypatch)
                assert (await asyncio.wait_for(following, 5)).state is State.READY


@pytest.mark.usefixtures("polled_by_hand")
async def test_the_directory_hears_of_what_is_followed_from_this_moment(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(catalog_url) as mine, opened(catalog_url) as others:
        names = ("debian", "fedora")
        for name in names:
            await store(others, image(name, state=State.PULLING).but(current=None, image_id=None))
        async with fed(mine) as feed:
            reading = mine.images.get_many
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def slowly(keys: Sequence[str]) -> list[ImageRecord]:
                begun.set()
                await go_on.wait()
                return await reading(keys)

            first, second = [(await stored(others, name)).key for name in names]
            async with (
                aclosing(feed.follow(first, Deadline.after(10))) as one,
                aclosing(feed.follow(second, Deadline.after(10))) as two,
            ):
                await anext(one)
                monkeypatch.setattr(mine.images, "get_many", slowly)
                for name in names:
                    await store(others, image(name))
                polling = asyncio.ensure_future(poll(feed, monkeypatch))
                await begun.wait()
                await anext(two)
                go_on.set()
                await polling
            for name in names:
                entry = feed.directory.get((await stored(others, name)).key)
                assert entry is not None
                assert entry.state is State.READY


@pytest.mark.usefixtures("polled_by_hand")
async def test_a_reference_that_was_forgotten_and_pulled_again_is_seen(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its versions begin anew; nobody may take it, or what is made of it, for the old one."""
    async with opened(catalog_url) as mine, opened(catalog_url) as others:
        await store(others, image(letter="a"))
        async with fed(mine) as feed:
            wire = WireImages(mine, Lookups(mine, feed))
            seen = await wire.named(NOBODY, target("debian"))
            assert seen is not None
            assert seen[1]["id"] == "a" * 64
            gone = image(state=State.EXPIRED).but(current=None, image_id=None)
            await store(others, gone)
            await poll(feed, monkeypatch)
            assert await wire.named(NOBODY, target("debian")) is None
            assert await others.images.remove(gone.key, (await stored(others)).version)
            await store(others, image(letter="b", pull_id="another"))
            await poll(feed, monkeypatch)
            seen = await wire.named(NOBODY, target("debian"))
            assert seen is not None
            assert (seen[0].image_id, seen[1]["id"]) == ("b" * 64, "b" * 64)
