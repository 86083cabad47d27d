"""`dray inspect` as people call it: on files, and on what a running site knows."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.images import File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.packing import build_image as woven_image
from tests.support.packing import tar_of
from tests.support.registry import DebianRegistry
from tests.support.site import Site
from tests.support.squashfs import small_tree

pytestmark = pytest.mark.asyncio(loop_scope="module")

DRAY = Path(sys.executable).with_name("dray")
BASE = layer_of({"base": File(noise(1 << 20)), "etc/version": File(b"0")})


def dray(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DRAY, *arguments],
        env=os.environ | {"XDG_CACHE_HOME": "/nonexistent"} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Inspected:
    """A site with two images of one base, and their references."""

    def __init__(self, site: Site, host: str) -> None:
        self.site = site
        self.references = [f"{host}/team/app:{tag}" for tag in ("1", "2")]

    async def tell(self, *arguments: str | Path) -> Any:
        ran = await asyncio.to_thread(dray, "inspect", "--json", *arguments, DRAY_URL=self.site.url)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def inspected(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inspected]:
    directory = tmp_path_factory.mktemp("inspect")
    with DebianRegistry(directory / "registry") as registry:
        pusher = Pusher(registry.url)
        for tag in ("1", "2"):
            own = layer_of({"etc/version": File(tag.encode()), "own": File(noise(100_000))})
            pusher.push(build_image([BASE, own], run={"Env": [f"TAG={tag}"]}), "team/app", tag)
        async with Site(directory / "site") as site:
            await site.up()
            found = Inspected(site, registry.host)
            for reference in found.references:
                pull = await site.pull(reference)
                view = await site.reached(pull["id"], "READY", "FAILURE")
                assert view["state"] == "READY", view["failure"]
            yield found


async def test_a_reference_tells_what_its_layers_share(inspected: Inspected) -> None:
    told = await inspected.tell(inspected.references[0])
    base, own = told["layers"]
    assert (base["others"], own["others"]) == (1, 0)
    assert base["size"] > 1 << 20
    totals = told["totals"]
    assert totals["shared"] == base["size"]
    assert totals["own"] == told["size"] - base["size"]
    assert totals["tables"] == told["size"] - base["size"] - own["size"]
    assert told["runs"]["env"] == ["TAG=1"]


async def test_reference_id_and_file_tell_the_same(inspected: Inspected) -> None:
    by_reference = await inspected.tell(inspected.references[1])
    by_id = await inspected.tell(by_reference["id"])
    assert by_id == by_reference
    path = inspected.site.images / f"{by_reference['id']}.squashfs"
    by_file = await inspected.tell(path, "--cache", inspected.site.store, "--check")
    assert by_file["layers"] == by_reference["layers"]
    assert by_file["totals"] == by_reference["totals"]
    assert by_file["checked"]["content_digest"] == by_reference["content_digest"]
    for same in ("id", "size", "inodes", "options", "compression", "block_size"):
        assert by_file[same] == by_reference[same]


async def test_people_get_a_table(inspected: Inspected) -> None:
    ran = await asyncio.to_thread(
        dray, "inspect", inspected.references[0], DRAY_URL=inspected.site.url
    )
    lines = ran.stdout.splitlines()
    heading = next(at for at, line in enumerate(lines) if line.startswith("#"))
    assert lines[heading + 1].split()[:4] == ["1", BASE.digest[7:19], "1.0", "MB"]
    assert lines[heading + 1].split()[-1] == "1"
    assert any(line.startswith("shared      1.0 MB with other images") for line in lines)


async def test_an_id_that_nobody_knows_is_told(inspected: Inspected) -> None:
    ran = await asyncio.to_thread(dray, "inspect", "f" * 64, DRAY_URL=inspected.site.url)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "no READY image with the id" in ran.stderr


async def test_dead_data_is_told_and_damage_found(tmp_path: Path) -> None:
    hidden = noise(50_000)
    image = woven_image([tar_of(("a", hidden), ("b", b"b")), tar_of(("a", b"new"))], tmp_path)
    told = json.loads(dray("inspect", "--json", image.path).stdout)
    assert told["layers"][0]["dead"] >= 49_152 > told["layers"][1]["dead"]
    assert told["totals"]["shared"] is None
    assert "every byte" in dray("inspect", "--check", image.path).stdout
    with image.path.open("rb+") as file:
        file.seek(image.recipe.segments[0].offset + 5)
        file.write(b"damage")
    ran = dray("inspect", "--check", image.path)
    assert ran.returncode == 1
    assert "is damaged: the data of pack" in ran.stderr


async def test_a_file_of_another_program_still_tells_its_superblock(tmp_path: Path) -> None:
    if shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is missing: install squashfs-tools")
    tree, path = small_tree(tmp_path / "tree", hello="x"), tmp_path / "image"
    command: list[str | Path] = ["mksquashfs", tree, path, "-quiet", "-comp", "gzip", "-b", "64K"]
    subprocess.run(command, check=True, capture_output=True)
    ran = dray("inspect", "--check", path)
    assert ran.returncode == 0, ran.stderr
    assert "blocks      gzip, 64 KiB" in ran.stdout
    assert "sound: 2 names can be read" in ran.stdout
    assert "was not made by Dray" in ran.stdout


async def test_what_cannot_be_inspected_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image" * 100)
    for arguments, code, words in (
        ([tmp_path / "text"], 1, "no squashfs image"),
        (["./absent.squashfs"], 1, "No such file"),
        ([tmp_path], 1, "no file"),
        (["alpine:3", "--check"], 2, "write it like ./image.squashfs"),
        ([tmp_path / "text", "--cache", tmp_path], 2, "no pack store"),
    ):
        ran = dray("inspect", *arguments)
        assert (ran.returncode, ran.stdout) == (code, "")
        assert words in ran.stderr
        assert ran.stderr.count("\n") == 1


@pytest.mark.root
async def test_the_kernel_mounts_an_image_that_describes_itself(tmp_path: Path) -> None:
    image = woven_image([tar_of(("a", noise(20_000)))], tmp_path)
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop,ro", image.path, mount], check=True, timeout=60)
    try:
        assert (mount / "a").read_bytes() == noise(20_000)
    finally:
        subprocess.run(["umount", mount], check=True, timeout=60)


async def test_squashfuse_mounts_an_image_that_describes_itself(tmp_path: Path) -> None:
    if shutil.which("squashfuse") is None or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("squashfuse cannot be used here: install squashfuse, and allow /dev/fuse")
    image = woven_image([tar_of(("a", noise(20_000)))], tmp_path)
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["squashfuse", image.path, mount], check=True, timeout=60)
    try:
        assert (mount / "a").read_bytes() == noise(20_000)
    finally:
        subprocess.run(["fusermount", "-u", mount], check=True, timeout=60)
