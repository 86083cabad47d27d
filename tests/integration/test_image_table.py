"""The table of images as gateways serve it: what one may see, what it shares, who uses it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.usage.counting import HOUR, Subject, User
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord, UsageRecord
from shared.models import utcnow
from tests.support.catalogs import opened, put, soon
from tests.support.gateways import Running, Said
from tests.support.lifecycle import store
from tests.support.shares import length, made
from tests.support.two_gateways import Pair, pair

ADA, BOB = 4201, 4202
PUBLIC = made("debian", "a", "de").but(brought_by=BOB)
PRIVATE = made("secret", "b", "df", owner=ADA)
SAME = made("twin", "b", "df", owner=BOB)
"""The same image as Ada's, which neither of them knows."""


async def use(catalog: Catalog, record: ImageRecord, *uids: int | None, name: str = "") -> None:
    hour = utcnow().strftime(HOUR)
    for uid in uids:
        who = User(name or f"user{uid}", uid)
        subject = Subject(
            hour, record.system, who.name, uid, record.reference, record.image_id,
            record.private, record.owner,
        )  # fmt: skip
        usage = UsageRecord(**subject._asdict(), key=subject.key, lookups=1, last=utcnow())
        await catalog.usage.change(usage.key, put(usage), soon())


@pytest.fixture
async def two(tmp_path: Path, catalog_url: str) -> AsyncIterator[Pair]:
    async with opened(catalog_url) as catalog:
        await store(catalog, PUBLIC, PRIVATE, SAME)
        await use(catalog, PUBLIC, ADA, BOB, None)
        await use(catalog, PUBLIC, ADA, name="another name")
        await use(catalog, PRIVATE, ADA)
        await use(catalog, SAME, BOB, 4203)
    async with pair(tmp_path, catalog_url) as running:
        yield running


async def table(running: Running, token: str | None, query: str = "") -> Said:
    path = f"/images/table?sort=name&order=asc{query}"
    return await (running.ask(path) if token is None else running.bearer(token, path))


async def rows(running: Running, token: str | None, query: str = "") -> dict[str, dict[str, Any]]:
    said = await table(running, token, query)
    assert said.status == 200, said.body
    items = said.body["items"]
    assert said.body["total"] == len(items)
    assert said.body["bytes"] == sum(each["size"] for each in items)
    return {each["reference"].split("/")[-1].split(":")[0]: each for each in items}


async def test_each_sees_their_own_and_learns_nothing_of_others(two: Pair) -> None:
    nobody = await rows(two.a, None)
    ada = await rows(two.a, two.token(ADA))
    bob = await rows(two.b, two.token(BOB))
    assert (set(nobody), set(ada), set(bob)) == (
        {"debian"}, {"debian", "secret"}, {"debian", "twin"},
    )  # fmt: skip
    # Both private images have a pack in common with the public one, and with each other.
    assert [each["debian"]["shared_bytes"] for each in (nobody, ada, bob)] == [0, 0, 0]
    assert ada["secret"]["shared_bytes"] == bob["twin"]["shared_bytes"] == length("d")
    assert [each["debian"]["users"] for each in (nobody, ada, bob)] == [None, None, 3]
    assert ada["secret"]["users"] == 1
    assert bob["twin"]["users"] == 2
    assert (ada["secret"]["owner"], ada["secret"]["private"]) == (ADA, True)
    assert (nobody["debian"]["layers"], nobody["debian"]["pinned"]) == (2, False)


async def test_admins_see_it_all(two: Pair) -> None:
    said = await two.a.ask_locally("/images/table?sort=shared&order=desc")
    found = {each["reference"].split("/")[-1]: each for each in said.body["items"]}
    assert len(found) == 3
    # An image of two references is one image: what only they have is not shared.
    assert {each["shared_bytes"] for each in found.values()} == {length("d")}
    assert [found[f"{name}:1"]["users"] for name in ("debian", "secret", "twin")] == [3, 3, 3]


async def test_searching_and_paging(two: Pair) -> None:
    token = two.token(ADA)
    assert set(await rows(two.a, token, "&q=SECR")) == {"secret"}
    assert set(await rows(two.a, token, f"&q={'a' * 12}")) == {"debian"}
    assert set(await rows(two.a, token, "&q=nothing")) == set()
    first = await table(two.a, token, "&limit=1")
    assert first.body["total"] == 2
    second = await table(two.b, token, f"&limit=1&after={first.body['next']}")
    assert second.body["next"] is None
    references = [page.body["items"][0]["reference"] for page in (first, second)]
    assert references == sorted([PUBLIC.reference, PRIVATE.reference])
    other = await two.a.bearer(token, f"/images/table?sort=size&after={first.body['next']}")
    assert (other.status, other.code) == (400, "invalid_cursor")
    assert (await table(two.a, token, "&system=absent")).code == "unknown_system"
    assert (await two.a.ask("/images/table?sort=colour")).code == "invalid_input"
