"""Which record is meant by whom: what a lookup shows, and never one that its asker does not see."""

import pytest

from services.gateway.auth.identity import NotAllowedError, Principal
from services.gateway.expiry import Expiry
from services.gateway.held import Held
from services.gateway.images import Images, not_ready
from services.gateway.meaning import Meaning
from shared.catalog.interface import Catalog
from shared.catalog.records import Failure, ImageRecord
from shared.errors import InvalidInputError, NotFoundError
from shared.states import State
from tests.integration.test_lookups import gateway_of
from tests.support.lifecycle import (
    ADA,
    ADMIN,
    BOB,
    DAYS,
    EVE,
    NOBODY,
    SYSTEM,
    image,
    store,
    stored,
    target,
)

DEBIAN = target("debian")
REFUSED = Failure(code="registry_access_refused", message="it may be private")


def refused(uid: int | None = 3000) -> ImageRecord:
    """What a pull without a login left, of a reference that is somebody's secret."""
    record = image(state=State.FAILURE, failure=REFUSED, requested_uid=uid, brought_by=uid)
    return record.but(current=None, image_id=None)


def expiring(catalog: Catalog) -> Expiry:
    return Expiry(catalog, Held(catalog), {SYSTEM: DAYS}.get, 10.0)


@pytest.mark.parametrize(
    ("who", "told"), [(EVE, True), (ADMIN, True), (ADA, False), (NOBODY, False)]
)
async def test_a_refused_pull_is_told_to_who_asked_and_to_admins(
    catalog: Catalog, who: Principal, told: bool
) -> None:
    await store(catalog, refused())
    nothing = str(not_ready(DEBIAN, None))
    async with gateway_of(catalog) as (_, lookups):
        queued = await lookups.queued(who, [SYSTEM])
        assert [entry.key for entry in queued] == ([DEBIAN.key] if told else [])
        assert (await lookups.pull_of(who, DEBIAN.key) is not None) is told
        standing = await lookups.standing(who, DEBIAN)
        assert (str(not_ready(DEBIAN, standing)) != nothing) is told
    with pytest.raises(NotFoundError) as of_job:
        await Images(catalog).lookup(who, DEBIAN)
    assert (str(of_job.value) != nothing) is told
    await expiring(catalog).expire(DEBIAN, ADMIN)
    async with gateway_of(catalog) as (_, lookups):
        standing = await lookups.standing(who, DEBIAN)
        assert (str(not_ready(DEBIAN, standing)) != nothing) is told, "also when it has expired"


async def test_what_nobody_asked_for_by_name_is_only_an_admins(catalog: Catalog) -> None:
    await store(catalog, refused(None))
    async with gateway_of(catalog) as (_, lookups):
        for who, count in ((NOBODY, 0), (EVE, 0), (ADMIN, 1)):
            assert len(await lookups.queued(who, [SYSTEM])) == count


async def test_a_failed_pull_of_the_site_makes_nothing_public(catalog: Catalog) -> None:
    await store(catalog, refused(), image(owner=1000, allowed_uids=(2000,)))
    meaning = Meaning(catalog)
    assert (await meaning.mine(DEBIAN, ADA)).owner == 1000
    with pytest.raises(NotAllowedError, match="uid 1000"):
        await meaning.mine(DEBIAN, BOB)
    with pytest.raises(NotFoundError, match="you have no image"):
        await meaning.mine(DEBIAN, EVE)


async def test_readers_are_those_of_what_a_lookup_shows(catalog: Catalog) -> None:
    failed = image(owner=3000, state=State.FAILURE).but(current=None)
    await store(catalog, image(), image(owner=1000), failed)
    meaning = Meaning(catalog)
    owners = [(await meaning.mine(DEBIAN, who)).owner for who in (ADA, BOB, EVE)]
    assert owners == [1000, None, None]
    await store(catalog, failed.but(state=State.PULLING))
    assert (await meaning.mine(DEBIAN, EVE)).owner == 3000, "on its way, and soon what is shown"


async def test_a_reader_takes_nothing_away_neither_the_image_nor_what_is_hidden(
    catalog: Catalog,
) -> None:
    await store(catalog, refused(2000), image(owner=1000, allowed_uids=(2000,)))
    with pytest.raises(NotAllowedError, match="belongs to uid 1000"):
        await expiring(catalog).expire(DEBIAN, BOB)
    with pytest.raises(NotFoundError, match="there is no"):
        await expiring(catalog).expire(DEBIAN, EVE)
    assert (await stored(catalog)).state is State.FAILURE
    assert (await stored(catalog, owner=1000)).state is State.READY
    await expiring(catalog).expire(DEBIAN, ADA)
    assert (await stored(catalog, owner=1000)).state is State.EXPIRING
    await expiring(catalog).expire(DEBIAN, BOB)
    assert (await stored(catalog)).state is State.EXPIRED, "then that is all there is to mean"


async def test_an_admin_says_whose_where_several_have_one(catalog: Catalog) -> None:
    await store(catalog, refused(), image(owner=1000), image(owner=2000))
    gateway = expiring(catalog)
    with pytest.raises(InvalidInputError, match=r"uid 1000, 2000.*--owner"):
        await gateway.expire(DEBIAN, ADMIN)
    with pytest.raises(NotFoundError):
        await gateway.expire(DEBIAN, ADMIN, owner=3000)
    for owner in (2000, None):
        [gone] = await gateway.expire(DEBIAN, ADMIN, owner=owner)
        assert gone.owner == (owner or 1000)
    assert (await stored(catalog)).state is State.FAILURE
