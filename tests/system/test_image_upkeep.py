"""Image files that vanish, rot, or are nobody's, under a running site with real mounts."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from services.distributor.scrub import STATE
from tests.support.conditions import eventually
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.registry import DebianRegistry
from tests.support.site import Site

SHORT = {
    "reconcile_interval": 0.3,
    "reconcile_grace": 0.01,
    "unknown_grace": 1.0,
    "removal_interval": 0.3,
    "removal_grace": 1.0,
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts by loop device: needs root")


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site", {"distributor": SHORT}) as site:
        await site.up()
        yield site


def built(text: bytes) -> BuiltImage:
    """Nearly all of it is noise, which nobody reads."""
    return build_image([layer_of({"etc/motd": File(text), "noise": File(noise(1 << 20))})])


async def ready(site: Site, reference: str) -> Path:
    pull = await site.pull(reference)
    view = await site.reached(pull["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
    return site.images / f"{view['image']['id']}.squashfs"


def path_of(reference: str) -> str:
    return f"/api/v1/images/cluster/docker/{reference}"


async def mounted_for(site: Site, job: str, reference: str) -> Path:
    body = {"job_id": job, "images": [reference], "nodes": ["node1"]}
    status, answer = await site.ask("POST", "/api/v1/jobs", body)
    assert status == 202, answer

    async def mount() -> Path | None:
        view = (await site.ask("GET", f"/api/v1/jobs/{job}"))[1]
        if view["counts"]["STAGED"] != 1:
            return None
        places = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()]
        return next(place for place in places if place.is_relative_to(site.directory))

    found = await eventually(mount, within=30)
    assert found is not None
    return found


async def test_a_file_that_vanished_comes_back_out_of_packs(
    site: Site, registry: DebianRegistry
) -> None:
    Pusher(registry.url).push(built(b"text\n"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    image = await ready(site, reference)
    content = image.read_bytes()
    image.unlink()
    await eventually(image.exists, within=20)
    assert image.read_bytes() == content
    assert (await site.ask("GET", path_of(reference)))[0] == 200
    assert site.check_images() == 1


async def test_what_cannot_come_back_is_no_longer_ready_and_is_pulled_again(
    site: Site, registry: DebianRegistry
) -> None:
    Pusher(registry.url).push(built(b"text\n"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    image = await ready(site, reference)
    for pack in site.store.rglob("*.pack"):
        pack.unlink()
    image.unlink()

    async def no_longer_found() -> bool:
        return (await site.ask("GET", path_of(reference)))[0] == 404

    await eventually(no_longer_found, within=20)
    pulls = (await site.ask("GET", "/api/v1/queue"))[1]["items"]
    [failure] = [each["failure"] for each in pulls if each["state"] == "FAILURE"]
    assert failure["code"] == "image_lost"
    assert "pull it again" in failure["message"]
    assert await ready(site, reference) == image
    assert site.check_images() == 1


@pytest.mark.root
@needs_root
async def test_a_flipped_bit_is_found_and_mended_under_a_running_mount(
    site: Site, registry: DebianRegistry
) -> None:
    Pusher(registry.url).push(built(b"from the image\n"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    image = await ready(site, reference)
    content, inode = image.read_bytes(), image.stat().st_ino
    mount = await mounted_for(site, "17", reference)
    place = len(content) // 2
    with image.open("r+b") as file:
        file.seek(place)
        file.write(bytes([content[place] ^ 1]))

    def another_file() -> bool:
        with suppress(FileNotFoundError):
            (image.parent / STATE).unlink()  # the next pass is due in a month
        return image.stat().st_ino != inode

    await eventually(another_file, within=30)
    assert image.read_bytes() == content
    assert (mount / "etc/motd").read_text() == "from the image\n"
    assert "image_mended" in site.log("up")
    assert (await site.ask("DELETE", "/api/v1/jobs/17"))[0] == 202
    await eventually(lambda: not mount.exists() or not any(mount.iterdir()), within=20)
    again = await mounted_for(site, "18", reference)
    assert (again / "noise").read_bytes() == noise(1 << 20)


@pytest.mark.root
@needs_root
async def test_what_the_catalog_does_not_know_goes_but_never_from_under_a_job(
    site: Site, registry: DebianRegistry
) -> None:
    push = Pusher(registry.url).push
    push(built(b"known\n"), "team/known", "1")
    push(built(b"unknown\n"), "team/unknown", "1")
    known = await ready(site, f"{registry.host}/team/known:1")
    unknown = await ready(site, f"{registry.host}/team/unknown:1")
    mount = await mounted_for(site, "17", f"{registry.host}/team/unknown:1")
    site.kill("up")
    with closing(sqlite3.connect(site.directory / "data" / "catalog.db")) as catalog:
        gone = catalog.execute("DELETE FROM images WHERE key LIKE '%/team/unknown:1'").rowcount
        catalog.commit()
    assert gone == 1
    await site.up()
    await eventually(lambda: "image_held_by_job" in site.log("up"), within=30)
    assert unknown.exists()
    assert (mount / "etc/motd").read_text() == "unknown\n"
    assert (await site.ask("DELETE", "/api/v1/jobs/17"))[0] == 202
    await eventually(lambda: not unknown.exists(), within=30)
    await eventually(lambda: not list(site.images.rglob("*.removed")), within=30)
    assert known.exists()
    assert site.check_images() == 1


async def test_a_pull_that_finds_no_room_fails_with_the_numbers(
    tmp_path: Path, registry: DebianRegistry
) -> None:
    Pusher(registry.url).push(built(b"text\n"), "team/app", "1")
    settings = {"systems": {"cluster": {"reserve_bytes": 1 << 60}}}
    async with Site(tmp_path / "site", settings) as site:
        await site.up()
        pull = await site.pull(f"{registry.host}/team/app:1")
        view = await site.reached(pull["id"], "READY", "FAILURE")
        assert view["failure"]["code"] == "image_directory_full"
        assert view["tries"] == 1
        message = view["failure"]["message"]
        assert "an image of 2 MiB" in message
        assert "1,099,511,627,776 MiB stay in reserve" in message
        assert str(site.images) in message
        assert site.leftovers() == []
        assert not list(site.images.glob("*.squashfs"))
