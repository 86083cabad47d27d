"""READY images as Shifter's wire shows them, out of memory: as true and as small as it must be."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.auth.identity import Principal, Scope
from services.gateway.feed import ChangeFeed
from services.gateway.lookups import Lookups
from services.gateway.shifter.images import WireImages
from services.gateway.transitions import PullTarget
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import image_key
from shared.deadline import Deadline
from shared.models import utcnow
from tests.support.catalogs import opened
from tests.support.transitions import ready

ADA = Principal("ada", frozenset({Scope.READ}), "munge", 1000)
BOB = Principal("bob", frozenset({Scope.READ}), "munge", 1001)
SYSTEMS = ("cluster",)


class Images:
    """A catalog, and what the wire makes of it."""

    def __init__(self, catalog: Catalog, feed: ChangeFeed, most_bytes: int) -> None:
        self._catalog = catalog
        self.wire = WireImages(catalog, Lookups(catalog, feed), most_bytes)

    async def put(self, name: str, **fields: Any) -> PullTarget:
        reference = f"docker.io/library/{name}"
        owner = fields.get("owner")
        target = PullTarget("cluster", "docker", reference, owner)
        stored = await self._catalog.images.get(target.key)
        record = ready().but(
            key=image_key("cluster", "docker", reference, owner),
            reference=reference,
            version=stored.version if stored else 0,
            last_pull=utcnow(),
            **fields,
        )
        await self._catalog.images.change(record.key, lambda _: Change(record), Deadline.after(5))
        return target

    async def tags(self, who: Principal) -> list[list[str]]:
        return [each["tag"] for each in json.loads(await self.wire.listed(who, SYSTEMS))["list"]]


@pytest.fixture(params=[1 << 20, 1])
async def images(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Images]:
    """With room for all of them, and with room for none."""
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        feed = ChangeFeed(catalog)
        await feed.start()
        try:
            yield Images(catalog, feed, request.param)
        finally:
            await feed.stop()


async def test_references_of_one_image_are_its_tags(images: Images) -> None:
    for name in ("a:1", "a:2", "b:1"):
        await images.put(name)
    await images.put("c:1", owner=1000, private=True)
    assert await images.tags(ADA) == [["a:1", "a:2", "b:1"], ["c:1"]]
    assert await images.tags(BOB) == [["a:1", "a:2", "b:1"]]
    assert await images.tags(ADA) == [["a:1", "a:2", "b:1"], ["c:1"]], "lists leave no trace"


async def test_a_change_is_seen(images: Images) -> None:
    target = await images.put("a:1", owner=1000, private=True)
    found = await images.wire.named(ADA, target)
    assert found is not None
    assert found[1]["userACL"] == [1000]
    assert await images.wire.named(BOB, target) is None
    await images.put("a:1", owner=1000, private=True, allowed_uids=(1001,))
    for who in (ADA, BOB):
        found = await images.wire.named(who, target)
        assert found is not None
        assert (found[1]["userACL"], found[1]["tag"]) == ([1000, 1001], ["a:1"])


async def test_memory_is_bounded(images: Images) -> None:
    targets = [await images.put(f"many:{number}") for number in range(20)]
    for target in targets:
        found = await images.wire.named(BOB, target)
        assert found is not None
        assert found[0].reference == target.reference
    assert images.wire._bytes == sum(made.size for made in images.wire._kept.values())
    assert images.wire._bytes <= images.wire._most
