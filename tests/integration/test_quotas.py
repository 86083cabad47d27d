"""Quotas over real catalogs: what two gateways count, and what they refuse."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from services.gateway import feed as feeding
from services.gateway.auth.identity import Principal, Scope
from services.gateway.feed import ChangeFeed
from services.gateway.quotas import QuotaExceededError, Quotas, TooManyPullsError
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.events import ImageConverted
from shared.settings.lifecycle import QuotaSettings
from shared.states import State
from tests.support.catalogs import opened
from tests.support.lifecycle import ADA, BOB, NOBODY, SYSTEM, image, store, target
from tests.support.recipes import small_recipe
from tests.support.transitions import event_for

KIB = 1024
OPERATOR = Principal("operator", frozenset(Scope), "munge", 3000)


@asynccontextmanager
async def counting(
    catalog: Catalog, system_limit: int | None = None, **limits: int
) -> AsyncIterator[Quotas]:
    feed = ChangeFeed(catalog)
    quotas = Quotas(feed, QuotaSettings(**limits), {SYSTEM: system_limit})
    await feed.start()
    try:
        yield quotas
    finally:
        await feed.stop()


def converted(record: ImageRecord, letter: str, size: int) -> ImageConverted:
    recipe = small_recipe(letter).model_copy(update={"size": size})
    return event_for(record, ImageConverted, recipe=recipe)


async def standing(quotas: Quotas, who: Any = ADA) -> tuple[int, int, int]:
    [one] = await quotas.standing(who)
    return one.images, one.bytes, one.system_bytes


async def test_an_image_counts_once_however_many_references_name_it(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "FRESH_SECONDS", 0.0)
    async with AsyncExitStack() as stack:
        mine, others = [await stack.enter_async_context(opened(catalog_url)) for _ in range(2)]
        await store(mine, image("one", size=100), image("two", size=100))
        quotas = await stack.enter_async_context(counting(mine))
        await store(others, image("bobs", size=100, brought_by=2000))
        await store(others, image("private", "b", owner=1000, size=7))
        assert await standing(quotas) == (2, 107, 107)
        # That somebody has a private image is nobody else's to know, not even by its size.
        assert await standing(quotas, BOB) == (1, 100, 100)
        assert await standing(quotas, NOBODY) == (0, 0, 100)
        assert await standing(quotas, OPERATOR) == (0, 0, 107)
        await store(others, image("one", "c", size=50))
        assert await standing(quotas) == (3, 157, 157)
        await store(others, image("two", state=State.EXPIRED).but(current=None, image_id=None))
        assert await standing(quotas) == (2, 57, 157)
        await store(others, image("bobs", state=State.EXPIRED).but(current=None, image_id=None))
        assert await standing(quotas, BOB) == (0, 0, 50)


async def test_pulls_under_way_are_counted_for_who_asks(catalog: Catalog) -> None:
    async with counting(catalog, user_pulls_in_flight=1) as quotas:
        await quotas.check(ADA, target("one"))
        await store(catalog, image("one", state=State.PULLING))
        await quotas.check(ADA, target("one"))
        with pytest.raises(TooManyPullsError, match="1 pulls of yours") as caught:
            await quotas.check(ADA, target("two"))
        assert (caught.value.status, caught.value.retryable) == (429, True)
        await quotas.check(BOB, target("two"))
        await quotas.check(NOBODY, target("two"))
        await store(catalog, image("one"))
        await quotas.check(ADA, target("two"))


async def test_the_public_is_one_user_and_a_service_account_none(catalog: Catalog) -> None:
    service = Principal("service:ci", NOBODY.scopes, via="token")
    async with counting(catalog, user_pulls_in_flight=1) as quotas:
        await store(catalog, image("one", state=State.PULLING, requested_uid=None))
        with pytest.raises(TooManyPullsError, match="1 pulls of the public"):
            await quotas.check(NOBODY, target("two"))
        await quotas.check(ADA, target("two"))
        await quotas.check(service, target("two"))


async def test_who_brought_an_image_is_not_who_pulls_it_again(catalog: Catalog) -> None:
    async with counting(catalog, user_pulls_in_flight=1) as quotas:
        again = image("one", state=State.PULLING, requested_uid=2000, brought_by=1000)
        await store(catalog, again)
        await quotas.check(ADA, target("two"))
        with pytest.raises(TooManyPullsError):
            await quotas.check(BOB, target("two"))


async def test_images_are_counted_when_one_more_is_asked_for(catalog: Catalog) -> None:
    async with counting(catalog, user_images=2) as quotas:
        await store(catalog, image("one"), image("two", "b"))
        await quotas.check(ADA, target("two"))
        with pytest.raises(QuotaExceededError, match=r"2 images on cluster, and 2 .*dray rm"):
            await quotas.check(ADA, target("three"))
        await quotas.check(BOB, target("three"))


async def test_bytes_are_counted_when_the_size_is_known(catalog: Catalog) -> None:
    async with counting(catalog, user_bytes=100 * KIB) as quotas:
        pulling = image("two", "b", size=60 * KIB, state=State.CONVERSION)
        await store(catalog, image("one", size=40 * KIB), pulling)
        await quotas.check_size(converted(pulling, "c", 60 * KIB))  # in place of the 60 that it has
        await quotas.check_size(converted(pulling, "a", 1000 * KIB))  # counts already
        with pytest.raises(
            QuotaExceededError, match=r"61,441 bytes.*have 102,400, and 102,400 may be.*dray rm"
        ):
            await quotas.check_size(converted(pulling, "c", 60 * KIB + 1))
        await store(catalog, image("other", "b", size=60 * KIB))
        with pytest.raises(QuotaExceededError):
            await quotas.check_size(
                converted(pulling, "c", 60 * KIB)
            )  # another reference keeps the 60


@pytest.mark.parametrize(("own", "allowed"), [(None, 100 * KIB), (50 * KIB, 50 * KIB)])
async def test_a_system_holds_no_more_than_it_may(
    catalog: Catalog, own: int | None, allowed: int
) -> None:
    async with counting(catalog, own, system_bytes=100 * KIB) as quotas:
        pulling = image("two", "b", state=State.CONVERSION).but(current=None, image_id=None)
        await store(catalog, image("one", size=40 * KIB, brought_by=2000), pulling)
        await quotas.check_size(converted(pulling, "c", allowed - 40 * KIB))
        with pytest.raises(QuotaExceededError, match="cluster has no room left"):
            await quotas.check_size(converted(pulling, "c", allowed - 40 * KIB + 1))


async def test_what_can_never_fit_is_told_so(catalog: Catalog) -> None:
    pulling = image("two", "b", state=State.CONVERSION).but(current=None, image_id=None)
    await store(catalog, pulling)
    for limits in ({"user_bytes": 100 * KIB}, {"system_bytes": 100 * KIB}):
        async with counting(catalog, **limits) as quotas:
            with pytest.raises(QuotaExceededError, match=r"102,401 bytes.*can never fit") as caught:
                await quotas.check_size(converted(pulling, "c", 100 * KIB + 1))
            assert "remove some" not in caught.value.message
            await quotas.check_size(converted(pulling, "c", 100 * KIB))
