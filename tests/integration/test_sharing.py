"""Who else has a layer's pack, by a catalog that several gateways change."""

import pytest

from services.gateway import sharing
from services.gateway.sharing import Sharing
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord, PlacedImage
from shared.image.planning.shares import LayerShare
from shared.image.recipe import ImageConfig, PackOptions
from shared.models import utcnow
from shared.states import State
from tests.support.catalogs import opened, soon

DIGEST = "sha256:" + "d" * 64


def placed(image: str, packs: str) -> PlacedImage:
    """An image whose layers' packs are named by one letter each."""
    return PlacedImage(
        image_id=image * 64,
        reference_digest=DIGEST,
        manifest_digest=DIGEST,
        config_digest=DIGEST,
        pack=PackOptions(),
        max_dead_share=0.1,
        content_digest="0" * 64,
        size=1,
        inodes=1,
        config=ImageConfig(),
        layers=(DIGEST,) * len(packs),
        shares=tuple(
            LayerShare(digest=DIGEST, pack=pack * 64, size=1, dead=0, left_out=0, pieces=1)
            for pack in packs
        ),
        ready_at=utcnow(),
    )


async def store(catalog: Catalog, key: str, current: PlacedImage | None) -> None:
    def step(found: ImageRecord | None) -> Change[ImageRecord]:
        now = utcnow()
        return Change(
            ImageRecord(
                key=key,
                system="cluster",
                reference=key,
                state=State.READY,
                attempt=1,
                tries=1,
                pull_id=key,
                requested_at=now,
                requested_by="ada",
                waiting_since=now,
                last_pull=now,
                pack=PackOptions(),
                max_dead_share=0.1,
                version=found.version if found else 0,
                current=current,
            )
        )

    await catalog.images.change(key, step, soon())


async def others(of: Sharing, image: str, packs: str) -> tuple[int, ...]:
    return await of.others(image * 64, [pack * 64 for pack in packs])


async def test_images_are_counted_not_their_names(catalog_url: str) -> None:
    async with opened(catalog_url) as catalog:
        await store(catalog, "one", placed("1", "abca"))
        await store(catalog, "same", placed("1", "abca"))
        await store(catalog, "two", placed("2", "ab"))
        await store(catalog, "pulling", None)
        index = Sharing(catalog)
        assert await others(index, "1", "abca") == (1, 1, 0, 1)
        assert await others(index, "2", "ab") == (1, 1)
        assert await others(index, "9", "ac") == (2, 1)


async def test_what_a_reference_stood_for_before_no_longer_counts(catalog_url: str) -> None:
    async with opened(catalog_url) as catalog:
        index = Sharing(catalog)
        await store(catalog, "one", placed("1", "ab"))
        await store(catalog, "same", placed("1", "ab"))
        assert await others(index, "9", "ab") == (1, 1)
        await store(catalog, "one", placed("2", "bc"))
        assert await others(index, "9", "abc") == (1, 2, 1)
        await store(catalog, "same", None)
        assert await others(index, "9", "abc") == (0, 1, 1)


async def test_another_gateway_s_changes_count_when_the_last_reading_is_old(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(catalog_url) as mine, opened(catalog_url) as others_catalog:
        index = Sharing(mine)
        assert await others(index, "9", "a") == (0,)
        await store(others_catalog, "one", placed("1", "a"))
        assert await others(index, "9", "a") == (0,)
        monkeypatch.setattr(sharing, "FRESH_SECONDS", 0.0)
        assert await others(index, "9", "a") == (1,)


async def test_a_catalog_of_several_pages_is_read_to_its_end(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_PAGE", 2)
    async with opened(catalog_url) as catalog:
        for number in range(5):
            await store(catalog, f"image{number}", placed(str(number), "a"))
        assert await others(Sharing(catalog), "4", "a") == (4,)


async def test_an_older_version_of_a_record_changes_nothing(catalog_url: str) -> None:
    async with opened(catalog_url) as catalog:
        await store(catalog, "one", placed("1", "a"))
        old = await catalog.images.get("one")
        await store(catalog, "one", placed("2", "b"))
        index = Sharing(catalog)
        assert await others(index, "9", "ab") == (0, 1)
        assert old is not None
        index.note(old)
        assert await others(index, "9", "ab") == (0, 1)
