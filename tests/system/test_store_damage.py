"""A pack store that is damaged heals: whoever pulls gets the right bytes without doing anything."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.registry import DebianRegistry
from tests.support.site import Site

BASE = layer_of({"base": File(noise(2 << 20))})
OTHER = layer_of({"other": File(noise(1 << 20)[::-1])})


def image_of(text: str) -> BuiltImage:
    """Two layers that all share, and one of its own."""
    return build_image([BASE, OTHER, layer_of({"etc/version": File(text.encode())})])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site") as site:
        await site.up()
        yield site


def largest_pack(site: Site) -> Path:
    return max((site.store / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)


def flip_data(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_index(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-140] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_data, flip_index, cut, empty, Path.unlink])
async def test_a_damaged_pack_is_made_again_for_the_next_tag(
    damage: Callable[[Path], None], registry: DebianRegistry, site: Site
) -> None:
    for tag in ("1", "2"):
        Pusher(registry.url).push(image_of(tag), "team/app", tag)
    await ready(site, f"{registry.host}/team/app:1")
    sound = {path: path.read_bytes() for path in (site.store / "packs").rglob("*.pack")}
    others = {path: path.stat().st_ino for path in sound}
    victim = largest_pack(site)
    del others[victim]
    damage(victim)
    await ready(site, f"{registry.host}/team/app:2")
    assert victim.read_bytes() == sound[victim]
    assert {path: path.stat().st_ino for path in others} == others, "only this one was made again"
    assert site.check_images() == 2
    kept = list((site.store / "damaged").glob(f"{victim.name}.*"))
    assert len(kept) == (0 if damage is Path.unlink else 1)


@pytest.mark.parametrize("damage", [flip_data, empty, Path.unlink])
async def test_damaged_tables_are_made_again(
    damage: Callable[[Path], None], registry: DebianRegistry, site: Site
) -> None:
    """The placed image is gone as well: all of it has to come from the store once more."""
    Pusher(registry.url).push(image_of("1"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    await ready(site, reference)
    (tables,) = (path for path in (site.store / "tables").rglob("*") if path.is_file())
    content = tables.read_bytes()
    damage(tables)
    (image,) = site.images.glob("*.squashfs")
    image.unlink()
    body = {"reference": reference, "force": True}
    status, pull = await site.ask("POST", "/api/v1/pulls", body)
    assert status in {200, 202}
    view = await site.reached(pull["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
    assert tables.read_bytes() == content
    assert site.check_images() == 1


async def ready(site: Site, reference: str) -> None:
    view = await site.reached((await site.pull(reference))["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
