"""What users are told of use: over both databases, and never of what is not theirs to know."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from services.gateway.auth.identity import NotAllowedError, NotAuthenticatedError, Principal
from services.gateway.usage.counting import UsedImage
from services.gateway.usage.report import (
    MOST_ASKING,
    MOST_LATEST,
    Report,
    Reports,
    TooManyReportsError,
)
from services.gateway.usage.retention import Retention
from services.gateway.usage.service import Usage
from shared.api import UsageBy, UsageView
from shared.catalog.interface import Catalog
from shared.deadline import Deadline
from shared.models import utcnow
from shared.settings.usage import UsageSettings
from tests.support.bulk import store_many
from tests.support.busy import never_busy_for_long
from tests.support.transitions import in_transfer, ready, requested
from tests.support.usage import (
    ADA,
    ADMIN,
    BOB,
    PUBLIC,
    SERVICE,
    Image,
    counting,
    stored,
    used,
)

NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
PUBLIC_IMAGE, SECRET = Image(), Image("example.org/ada/secret:1", "b" * 64, True, 1000)
SHARED = Image("example.org/bob/shared:1", "c" * 64, True, 2000)


def report(by: UsageBy = "image", **fields: object) -> Report:
    now = utcnow()
    given: dict[str, object] = {
        "since": now - timedelta(days=7),
        "until": now,
        "systems": ("alps",),
        **fields,
    }
    return Report(by=by, **given)  # type: ignore[arg-type]


async def lines(catalog: Catalog, who: Principal, wanted: Report) -> list[UsageView]:
    return (await Reports(catalog).page(who, wanted, 0, 100))[0]


@pytest.fixture
async def busy(catalog: Catalog) -> Catalog:
    """Ada and Bob use a public image; Ada one of her own, and one that Bob shares with her."""
    counted = counting(catalog)
    for who, image, times in (
        (ADA, PUBLIC_IMAGE, 3),
        (BOB, PUBLIC_IMAGE, 5),
        (ADA, SECRET, 2),
        (ADA, SHARED, 1),
        (PUBLIC, PUBLIC_IMAGE, 1),
        (SERVICE, PUBLIC_IMAGE, 4),
    ):
        for _ in range(times):
            counted.note("lookups", who, image)
    counted.note("pulls", ADA, SECRET)
    await counted.flush()
    return catalog


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        (ADMIN, {PUBLIC_IMAGE: 13, SECRET: 2, SHARED: 1}),
        (ADA, {PUBLIC_IMAGE: 13, SECRET: 2, SHARED: 1}),
        (BOB, {PUBLIC_IMAGE: 13, SHARED: 1}),
        (SERVICE, {PUBLIC_IMAGE: 13}),
        (PUBLIC, {PUBLIC_IMAGE: 13}),
    ],
    ids=lambda value: value.name if isinstance(value, Principal) else "",
)
async def test_totals_are_of_what_one_may_know(
    who: Principal, seen: dict[Image, int], busy: Catalog
) -> None:
    found = await lines(busy, who, report())
    assert {line.reference: line.lookups for line in found} == {
        image.reference: count for image, count in seen.items()
    }
    assert [line.lookups + line.pulls for line in found] == sorted(
        (line.lookups + line.pulls for line in found), reverse=True
    )
    # No other way of asking tells more, not even the sums.
    for by in ("hour", "day"):
        assert sum(line.lookups for line in await lines(busy, who, report(by))) == sum(
            seen.values()
        )


async def test_users_see_themselves_and_admins_all(busy: Catalog) -> None:
    by_user = {line.user: line for line in await lines(busy, ADMIN, report("user"))}
    assert {name: line.lookups for name, line in by_user.items()} == {
        "ada": 6,
        "bob": 5,
        "anonymous": 1,
        "dashboard": 4,
    }
    assert (by_user["ada"].uid, by_user["ada"].pulls, by_user["dashboard"].uid) == (1000, 1, None)
    assert [line.user for line in await lines(busy, BOB, report("user"))] == ["bob"]
    assert [line.user for line in await lines(busy, SERVICE, report("user"))] == ["dashboard"]
    for name in ("ada", "1000"):
        for who in (ADA, ADMIN):
            found = await lines(busy, who, report(user=name))
            assert sum(line.lookups for line in found) == 6
        for stranger in (BOB, SERVICE):
            with pytest.raises(NotAllowedError):
                await lines(busy, stranger, report(user=name))
    for wanted in (report("user"), report(user="ada"), report(user="anonymous")):
        with pytest.raises(NotAuthenticatedError):
            await lines(busy, PUBLIC, wanted)


async def test_a_filter_finds_no_strangers_image(busy: Catalog) -> None:
    wanted = report(reference=SECRET.reference)
    assert await lines(busy, BOB, wanted) == []
    assert await lines(busy, PUBLIC, wanted) == []
    assert len(await lines(busy, ADA, wanted)) == 1


async def test_the_latest_are_ones_own_and_admins_see_all(busy: Catalog) -> None:
    usage = Usage(busy, UsageSettings(), timeout=10, tell=lambda _: None)
    everything = await usage.latest("alps", 100, ADMIN)
    assert len(everything) == 6
    assert [each.last for each in everything] == sorted(
        (each.last for each in everything), reverse=True
    )
    assert len(await usage.latest("alps", 2, ADMIN)) == 2
    assert {each.reference for each in await usage.latest("alps", 100, BOB)} == {
        PUBLIC_IMAGE.reference
    }
    assert await usage.latest("alps", 100, PUBLIC) == []
    assert await usage.latest("other", 100, ADMIN) == []


async def test_hours_days_and_their_borders(catalog: Catalog, catalog_url: str) -> None:
    hours = [NOON + timedelta(hours=number) for number in range(-30, 30)]
    records = [used(number, when, lookups=1) for number, when in enumerate(hours)]
    await asyncio.to_thread(store_many, catalog_url, records)
    since, until = NOON - timedelta(hours=2), NOON.replace(minute=0) + timedelta(hours=1)
    found = await lines(catalog, ADMIN, report("hour", since=since, until=until))
    assert [line.period for line in found] == ["2026-03-01T10", "2026-03-01T11", "2026-03-01T12"]
    wide = report("day", since=NOON - timedelta(days=9), until=NOON + timedelta(days=9))
    days = await lines(catalog, ADMIN, wide)
    expected = {"2026-02-28": 18, "2026-03-01": 24, "2026-03-02": 18}
    assert {line.period: line.lookups for line in days} == expected
    assert (await Reports(catalog).page(ADMIN, wide, 1, 1))[0] == days[1:2]


async def test_pages_are_together_what_one_page_is(catalog: Catalog, catalog_url: str) -> None:
    records = [used(number, NOON, lookups=number % 3) for number in range(50)]
    await asyncio.to_thread(store_many, catalog_url, records)
    wanted = report(since=NOON, until=NOON + timedelta(hours=1))
    whole, more = await Reports(catalog).page(ADMIN, wanted, 0, 1000)
    assert (len(whole), more) == (50, False)
    pages = [await Reports(catalog).page(ADMIN, wanted, offset, 20) for offset in (0, 20, 40)]
    assert [line for page, _ in pages for line in page] == whole
    assert [more for _, more in pages] == [True, True, False]


async def test_old_usage_is_forgotten_and_too_much_of_it(
    catalog: Catalog, catalog_url: str
) -> None:
    now = utcnow()
    old = [used(number, now - timedelta(days=11)) for number in range(700)]
    recent = [used(number, now - timedelta(days=number % 9)) for number in range(1500)]
    await asyncio.to_thread(store_many, catalog_url, [*old, *recent])
    await Retention(catalog, keep_days=10, max_records=10_000).run()
    assert len(await stored(catalog)) == 1500
    await Retention(catalog, keep_days=10, max_records=1000).run()
    left = await stored(catalog)
    assert len(left) == 1000
    kept = min(record.last for record in left)
    assert sum(record.last > kept for record in recent) < 1000, "the oldest went first"


async def test_ended_pulls_and_jobs_are_counted_once(catalog: Catalog) -> None:
    told: list[UsedImage] = []
    usage = Usage(catalog, UsageSettings(), timeout=10, tell=told.append)
    usage.start()
    usage.pull_changed(None, requested())
    usage.pull_changed(requested(), in_transfer())
    usage.pull_changed(in_transfer(), ready())
    usage.pull_changed(ready(), ready().but(pinned=True))
    await usage.stop(Deadline.after(10))
    [record] = await stored(catalog)
    assert (record.user, record.pulls, record.lookups, record.jobs) == ("ada", 1, 0, 0)
    assert record.image_id == ready().image_id
    assert [image.image_id for image in told] == [ready().image_id]


async def test_too_many_reports_are_refused_and_hold_nobody_up(busy: Catalog) -> None:
    reports = Reports(busy)
    asking = [reports.page(ADMIN, report(), 0, 10) for _ in range(MOST_ASKING + 5)]
    said = await asyncio.gather(*asking, return_exceptions=True)
    refused = [each for each in said if isinstance(each, TooManyReportsError)]
    assert len(refused) == 5
    assert await lines(busy, ADMIN, report())


async def test_a_hundred_thousand_records_hold_nobody_up(
    catalog: Catalog, catalog_url: str
) -> None:
    now = utcnow()
    numbers = range(100_000)
    for start in range(0, len(numbers), 20_000):
        some = numbers[start : start + 20_000]
        records = [used(n, now - timedelta(minutes=n % (7 * 1400))) for n in some]
        await asyncio.to_thread(store_many, catalog_url, records)
    async with never_busy_for_long():
        for by in get_args(UsageBy):
            page, _ = await Reports(catalog).page(ADMIN, report(by), 0, 100)
            assert page
            if by == "day":
                assert sum(line.lookups for line in page) == sum(n % 7 for n in numbers)
        found = await Reports(catalog).latest("alps", 10**6, ADMIN)
        assert len(found) == MOST_LATEST
