"""Who else has a layer's pack, by a catalog that several gateways change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.gateway.feed import ChangeFeed
from services.gateway.stock.pack_ledger import PackLedger
from shared.catalog.interface import Catalog
from shared.states import State
from tests.support.catalogs import opened
from tests.support.conditions import eventually
from tests.support.lifecycle import store
from tests.support.shares import made


class Sharing:
    """A gateway's ledger, which the feed keeps true."""

    def __init__(self, feed: ChangeFeed, ledger: PackLedger) -> None:
        self._feed = feed
        self._ledger = ledger

    async def others(self, image: str, packs: str) -> tuple[int, ...]:
        await self._feed.fresh()
        return self._ledger.others(image * 64, [pack * 64 for pack in packs])


@asynccontextmanager
async def sharing(catalog: Catalog) -> AsyncIterator[Sharing]:
    feed = ChangeFeed(catalog)
    ledger = PackLedger(feed.directory)
    await feed.start()
    yield Sharing(feed, ledger)
    await feed.stop()


async def test_images_are_counted_not_their_names(catalog: Catalog) -> None:
    await store(catalog, made("one", "1", "abca"), made("same", "1", "abca"))
    await store(catalog, made("two", "2", "ab"), made("hers", "3", "ab", owner=1000))
    async with sharing(catalog) as index:
        assert await index.others("1", "abca") == (1, 1, 0, 1)
        assert await index.others("2", "ab") == (1, 1)
        assert await index.others("3", "ab") == (2, 2)
        assert await index.others("9", "ac") == (2, 1)


async def test_what_another_gateway_changes_counts_soon(catalog_url: str) -> None:
    async with opened(catalog_url) as mine, opened(catalog_url) as theirs, sharing(mine) as index:
        await store(theirs, made("one", "1", "ab"), made("same", "1", "ab"))

        async def count(packs: str, *expected: int) -> None:
            async def told() -> bool:
                return await index.others("9", packs) == expected

            await eventually(told, within=10)

        await count("ab", 1, 1)
        await store(theirs, made("one", "2", "bc"))
        await count("abc", 1, 2, 1)
        gone = made("same", "1", "ab").but(current=None, state=State.EXPIRED)
        await store(theirs, gone)
        await count("abc", 0, 1, 1)
