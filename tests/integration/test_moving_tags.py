"""Tags that move: the image that they leave stays under its digest, and only where it is there."""

from pathlib import Path

from services.gateway.expiring import by_digest
from services.gateway.feed import ChangeFeed
from services.gateway.lifecycle import Lifecycle
from shared.bus.connect import connect_bus
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.config import Settings
from shared.events import ImagePlaced
from shared.states import State
from tests.support.lifecycle import SYSTEM, image, store
from tests.support.recipes import small_recipe
from tests.support.transitions import event_for

MOVING = image(letter="b", state=State.TRANSFER).but(recipe=small_recipe("c"))
PLACED = event_for(
    MOVING, ImagePlaced, system=SYSTEM, image_id="c" * 64, content_digest="c" * 64, size=8192
)


def lifecycle(catalog: Catalog, directory: Path) -> Lifecycle:
    systems = {SYSTEM: {"image_dir": str(directory / "images")}}
    settings = Settings.model_validate({"data_dir": str(directory), "systems": systems})
    return Lifecycle(settings, catalog, connect_bus(settings, "test"), ChangeFeed(catalog))


async def left_behind(catalog: Catalog) -> ImageRecord | None:
    digest = by_digest(MOVING)
    assert digest is not None
    return await catalog.images.get(digest.key)


async def test_what_a_tag_leaves_stays_under_its_digest(catalog: Catalog, tmp_path: Path) -> None:
    await store(catalog, MOVING)
    for _ in range(2):
        await lifecycle(catalog, tmp_path).placing(MOVING, PLACED)
        kept = await left_behind(catalog)
        assert kept is not None
        assert (kept.state, kept.image_id, kept.version) == (State.READY, "b" * 64, 1)
    await store(catalog, image(letter="c"))
    await lifecycle(catalog, tmp_path).placing(MOVING, PLACED)
    kept = await left_behind(catalog)
    assert kept is not None
    assert (kept.state, kept.version) == (State.READY, 1), "also if the news comes once more"


async def test_what_was_removed_since_does_not_come_back(catalog: Catalog, tmp_path: Path) -> None:
    """Another gateway has moved the tag, and the image it left was expired, file and all."""
    await store(catalog, image(letter="c"))
    await lifecycle(catalog, tmp_path).placing(MOVING, PLACED)
    kept = await left_behind(catalog)
    assert kept is not None
    assert (kept.state, kept.image_id) == (State.EXPIRING, None)
