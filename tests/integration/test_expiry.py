"""Expiry and pins over real catalogs, as several gateways do it."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from services.gateway import expiry
from services.gateway.auth.identity import NotAllowedError, Principal
from services.gateway.expiring import PullUnderWayError
from services.gateway.expiry import Expiry
from services.gateway.held import Held
from shared.catalog.interface import Catalog
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, NotFoundError
from shared.events import ImageExpireRequested
from shared.models import utcnow
from shared.states import State
from tests.support.catalogs import later, opened
from tests.support.lifecycle import (
    ADA,
    ADMIN,
    BOB,
    DAYS,
    EVE,
    NOBODY,
    SYSTEM,
    announce,
    image,
    release,
    store,
    stored,
    target,
)

LONG_AGO = utcnow() - timedelta(days=DAYS + 1)
YESTERDAY = utcnow() - timedelta(days=1)


def expiring(catalog: Catalog, days: Mapping[str, int] | None = None) -> Expiry:
    return Expiry(catalog, Held(catalog), ({SYSTEM: DAYS} if days is None else days).get, 10.0)


async def asked_for(catalog: Catalog) -> list[str]:
    """Of which images the distributor is asked whether they may go."""
    pending = [one.event for one in await catalog.pending(later(), 100)]
    return [event.image_id for event in pending if isinstance(event, ImageExpireRequested)]


async def sweep(catalog: Catalog, gateway: Expiry) -> None:
    for record in await catalog.images.due(utcnow(), 100):
        await gateway.overdue(record)


async def test_a_use_is_written_once_an_hour_by_all_gateways_together(catalog_url: str) -> None:
    async with opened(catalog_url) as mine, opened(catalog_url) as others:
        await store(mine, image(last=YESTERDAY))
        record = await stored(mine)
        gateways = [expiring(mine), expiring(others)]
        for gateway in gateways:
            for _ in range(100):
                gateway.used(record)
        assert (await stored(mine)).version == record.version, "no lookup waits for a write"
        for gateway in gateways:
            await gateway.flush()
        after = await stored(mine)
        assert after.version == record.version + 1
        assert after.expires_at is not None
        assert after.expires_at - utcnow() > timedelta(days=DAYS, minutes=-1)
        assert after.due_at == after.expires_at
        gateways[0].used(after)
        await gateways[0].flush()
        assert (await stored(mine)).version == after.version


async def test_uses_that_wait_are_written_at_the_end_and_never_too_many(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MOST_USES", 1)
    await store(catalog, image("one", last=YESTERDAY), image("two", "b", last=YESTERDAY))
    gateway = expiring(catalog)
    gateway.start()
    gateway.used(await stored(catalog, "one"))
    gateway.used(await stored(catalog, "two"))
    await gateway.stop()
    assert (await stored(catalog, "one")).last_used is not None
    assert (await stored(catalog, "two")).last_used is None


async def test_what_cannot_be_written_now_is_written_later(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(catalog, image("one", last=YESTERDAY), image("two", "b", last=YESTERDAY))
    gateway = expiring(catalog)
    gateway.used(await stored(catalog, "one"))
    gateway.used(await stored(catalog, "two"))
    with monkeypatch.context() as away:

        async def silent(*_: object) -> set[str]:
            raise CatalogUnavailableError("away")

        away.setattr(catalog.images, "change_all", silent)
        with pytest.raises(CatalogUnavailableError):
            await gateway.flush()
    change_all = catalog.images.change_all

    async def overtaken(steps: Mapping[str, Any], deadline: Deadline) -> set[str]:
        await gateway.pin(target("one"), ADMIN, pinned=True)
        monkeypatch.undo()
        await change_all({key: step for key, step in steps.items() if "two" in key}, deadline)
        return {key for key in steps if "one" in key}

    monkeypatch.setattr(catalog.images, "change_all", overtaken)
    await gateway.flush()
    assert (await stored(catalog, "two")).last_used is not None
    assert (await stored(catalog, "one")).last_used is None
    await gateway.flush()
    assert (await stored(catalog, "one")).last_used is not None


async def test_what_nobody_uses_expires_once_though_two_gateways_sweep(catalog_url: str) -> None:
    async with opened(catalog_url) as mine, opened(catalog_url) as others:
        await store(mine, image(last=LONG_AGO), image("used", "b", last=YESTERDAY))
        await asyncio.gather(*(sweep(each, expiring(each)) for each in (mine, others)))
        record = await stored(mine)
        assert (record.state, record.current, record.image_id) == (State.EXPIRING, None, None)
        assert record.leaving == "a" * 64
        assert await asked_for(mine) == ["a" * 64]
        assert (await stored(mine, "used")).state is State.READY


async def test_what_is_pinned_or_never_expires_stays(catalog: Catalog) -> None:
    await store(catalog, image(last=LONG_AGO))
    gateway = expiring(catalog)
    [pinned] = await gateway.pin(target("debian"), ADA, pinned=True)
    assert (pinned.pinned, pinned.due_at) == (True, None)
    await sweep(catalog, gateway)
    assert (await gateway.run_now(SYSTEM)).expired == ()
    assert (await stored(catalog)).state is State.READY

    await gateway.pin(target("debian"), ADA, pinned=False)
    for_ever = expiring(catalog, {SYSTEM: 0})
    await sweep(catalog, for_ever)
    record = await stored(catalog)
    assert (record.state, record.expires_at, record.due_at) == (State.READY, None, None)
    await gateway.run_now(SYSTEM)
    assert (await stored(catalog)).state is State.EXPIRING, "the settings say otherwise now"


async def test_an_image_of_a_running_job_is_in_use(catalog: Catalog) -> None:
    await store(catalog, image(last=LONG_AGO))
    await announce(catalog, "17", "a")
    done = await expiring(catalog).run_now(SYSTEM)
    assert (done.seen, done.expired, done.held) == (1, (), 1)
    record = await stored(catalog)
    assert record.state is State.READY
    assert record.last_used is not None

    await release(catalog, "17")
    await store(catalog, image(last=LONG_AGO))
    done = await expiring(catalog).run_now(SYSTEM)
    assert [each.reference for each in done.expired] == [target("debian").reference]


async def test_several_tags_on_one_image_expire_one_by_one_and_by_id(catalog: Catalog) -> None:
    await store(catalog, image("one"), image("two"), image("bobs", brought_by=2000))
    gateway = expiring(catalog)
    await gateway.expire(target("one"), ADA)
    states = [(await stored(catalog, name)).state for name in ("one", "two", "bobs")]
    assert states == [State.EXPIRING, State.READY, State.READY]
    gone = await gateway.expire_id(SYSTEM, "a" * 64, ADA)
    assert [record.reference for record in gone] == [target("two").reference]
    assert (await stored(catalog, "bobs")).state is State.READY
    again = await gateway.expire(target("one"), ADA)
    assert [record.state for record in again] == [State.EXPIRING]
    assert len(await asked_for(catalog)) == 2


@pytest.mark.parametrize(
    ("who", "owner", "error"),
    [
        (ADA, None, None),
        (ADMIN, None, None),
        (BOB, None, NotAllowedError),
        (NOBODY, None, NotAllowedError),
        (ADA, 1000, None),
        (BOB, 1000, NotFoundError),
        (NOBODY, 1000, NotFoundError),
        (EVE, 1000, NotAllowedError),
    ],
)
async def test_who_may_expire_and_pin(
    catalog: Catalog, who: Principal, owner: int | None, error: type[Exception] | None
) -> None:
    """Of a private image, whoever may not see it learns nothing; who only may use it, cannot."""
    await store(catalog, image(owner=owner, allowed_uids=(3000,) if owner else ()))
    gateway = expiring(catalog)
    named = None if who is ADA else owner
    for doing in (
        gateway.pin(target("debian"), who, pinned=True, owner=named),
        gateway.expire(target("debian"), who, owner=named),
    ):
        if error is None:
            await doing
            continue
        with pytest.raises(error) as caught:
            await doing
        if error is NotFoundError:
            with pytest.raises(NotFoundError) as nothing:
                await gateway.expire(target("nothing"), who)
            assert str(caught.value).replace("debian", "nothing") == str(nothing.value)
    after = await stored(catalog, owner=owner)
    assert after.state is (State.EXPIRING if error is None else State.READY)
    assert not after.pinned


async def test_ones_own_private_image_is_meant_before_the_sites(catalog: Catalog) -> None:
    await store(catalog, image(), image(letter="b", owner=1000))
    await expiring(catalog).expire(target("debian"), ADA)
    assert (await stored(catalog)).state is State.READY
    assert (await stored(catalog, owner=1000)).state is State.EXPIRING
    await expiring(catalog).expire(target("debian"), ADMIN)
    assert (await stored(catalog)).state is State.EXPIRING


async def test_what_is_being_pulled_cannot_be_expired(catalog: Catalog) -> None:
    await store(catalog, image(state=State.INIT))
    with pytest.raises(PullUnderWayError, match="wait until"):
        await expiring(catalog).expire(target("debian"), ADA)


async def test_an_answer_that_does_not_come_is_asked_for_again(catalog: Catalog) -> None:
    gateway = expiring(catalog)
    await store(catalog, image())
    await gateway.expire(target("debian"), ADA)
    record = await stored(catalog)
    await store(catalog, record.but(due_at=LONG_AGO, waiting_since=LONG_AGO))
    await sweep(catalog, gateway)
    record = await stored(catalog)
    assert record.state is State.EXPIRING
    assert record.due_at is not None
    assert record.due_at - utcnow() > timedelta(minutes=59), "ever more rarely"
    assert len(await asked_for(catalog)) == 2

    await store(catalog, record.but(due_at=LONG_AGO))
    await sweep(catalog, expiring(catalog, {}))
    assert (await stored(catalog)).state is State.EXPIRED, "there is no such system any more"


async def test_what_expired_long_ago_is_forgotten(catalog: Catalog) -> None:
    record = image(state=State.EXPIRED).but(current=None, image_id=None, due_at=LONG_AGO)
    await store(catalog, record)
    await sweep(catalog, expiring(catalog))
    assert await catalog.images.get(record.key) is None
