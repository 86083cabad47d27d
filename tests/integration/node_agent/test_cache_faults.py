"""What goes wrong around a cache: death at any step, full disks, reboots, devices that run out."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.node_agent.unmount import clear
from shared import linux
from shared.bus.connect import connect_bus
from tests.support.agents import (
    PATIENCE,
    Place,
    agent_process,
    ask,
    greeting,
    needs_root,
    running,
    serving,
)
from tests.support.cached import (
    MEGABYTE,
    Counted,
    cache_dir,
    cached,
    caching,
    copies,
    ended,
    layer,
    make_image,
    mounted,
    with_cache,
)
from tests.support.conditions import eventually
from tests.support.users import REPOSITORY

SLOW = 1 << 10
"""Bytes per second: no copy ends while a test lasts."""
loop_mounts = [pytest.param("loop", marks=needs_root)]


def fill_up(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(MEGABYTE // 16))


def partials(place: Place) -> list[Path]:
    return list(cache_dir(place).glob(".*.partial"))


@pytest.mark.parametrize("mount", loop_mounts)
async def test_an_agent_killed_in_the_middle_of_a_copy_leaves_nothing_behind(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1, 3)])
    slow = with_cache(place, rate=SLOW, patience=0.2)
    with agent_process(slow, mount) as process:
        await serving(slow, process)
        view = await mounted(place, image, "j")
        assert (view["from_cache"], greeting(view)) == (False, "hello\n")
        assert len(partials(place)) == 1
        process.kill()
    assert len(partials(place)) == 1
    assert greeting(view) == "hello\n", "the job goes on"
    with agent_process(with_cache(place), mount) as process:
        status = await serving(place, process)
        assert partials(place) == []
        assert [found["from_cache"] for found in status["mounts"]] == [False]
        await ended(place, "j")
        assert (await mounted(place, image, "next"))["from_cache"] is True
        await ended(place, "next")
    assert place.standing() == []


@pytest.mark.parametrize("mount", loop_mounts)
async def test_the_next_agent_knows_what_is_mounted_from_the_cache(
    place: Place, mount: str
) -> None:
    one, two = make_image(place, [layer(1)]), make_image(place, [layer(2)])
    tight = with_cache(place, max_bytes=int(1.5 * one.size))
    with agent_process(tight, mount) as process:
        await serving(tight, process)
        view = await mounted(place, one, "long")
        process.kill()
    with agent_process(tight, mount) as process:
        status = await serving(tight, process)
        assert [found["from_cache"] for found in status["mounts"]] == [True]
        assert [copy["in_use"] for copy in await copies(place)] == [True]
        assert (await mounted(place, two, "b"))["from_cache"] is False, "no room beside it"
        assert greeting(view) == "hello\n"
        for job in ("long", "b"):
            await ended(place, job)
        assert [copy["in_use"] for copy in await copies(place)] == [False]
        assert (await mounted(place, two, "b"))["from_cache"] is True
        await ended(place, "b")
    assert place.standing() == []


@pytest.mark.parametrize("mount", loop_mounts)
async def test_after_a_reboot_jobs_are_gone_and_copies_are_there(place: Place, mount: str) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, mount)
    async with running(settings, connect_bus(settings, "test")):
        view = await mounted(place, image, "before")
    clear(Path(view["path"]))
    Path(view["path"]).mkdir()  # all that a reboot leaves of a mount
    [job_file] = (place.agent_dir / "jobs").glob("*.json")
    job_file.write_text(json.dumps(json.loads(job_file.read_text()) | {"boot": "another"}))
    read = Counted("dray_agent_copied_bytes_total")
    async with running(settings, connect_bus(settings, "test")):
        _, status = await ask(place, "GET", "/v1/status")
        assert (status["jobs"], status["mounts"], place.standing()) == ({}, [], [])
        assert (await mounted(place, image, "after"))["from_cache"] is True
        assert read.grown == 0
        await ended(place, "after")


@pytest.mark.parametrize("mount", loop_mounts)
async def test_a_disk_that_fills_up_in_the_middle_of_a_copy_means_in_place(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1, 3)])
    cache_dir(place).mkdir()
    linux.mount("none", str(cache_dir(place)), "tmpfs", data="size=5m")
    settings = caching(place, mount, rate=MEGABYTE)
    try:
        async with running(settings, connect_bus(settings, "test")):
            failed = Counted("dray_agent_fallbacks_total", code="copy_failed")

            async def fill() -> bool:
                if not partials(place):
                    return False
                with pytest.raises(OSError, match="No space left"):
                    fill_up(cache_dir(place) / "of-somebody-else")
                return True

            asking = asyncio.create_task(mounted(place, image, "j"))
            await eventually(fill, within=PATIENCE)
            view = await asking
            assert (view["from_cache"], greeting(view)) == (False, "hello\n")
            assert failed.grown == 1
            assert partials(place) == []
            assert not cached(place, image).exists()
            await ended(place, "j")
    finally:
        linux.umount(str(cache_dir(place)))


@pytest.mark.parametrize("mount", loop_mounts)
async def test_a_job_whose_processes_stay_in_its_image_is_ended_all_the_same(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, mount)
    async with running(settings, connect_bus(settings, "test")):
        view = await mounted(place, image, "j")
        with subprocess.Popen(["sleep", "600"], cwd=view["path"]) as stays:
            try:
                await ended(place, "j")
                assert place.standing() == []
                assert stays.poll() is None
            finally:
                stays.kill()


@contextlib.contextmanager
def file_system(place: Place, kind: str) -> Iterator[None]:
    """The cache's own, of this kind."""
    cache_dir(place).mkdir()
    if kind == "tmpfs":
        linux.mount("none", str(cache_dir(place)), "tmpfs", data="size=64m")
    else:
        if shutil.which("mkfs.xfs") is None:
            pytest.skip("mkfs.xfs is missing: install xfsprogs")
        disk = place.root / "disk"
        with disk.open("wb") as file:
            file.truncate(512 * MEGABYTE)
        subprocess.run(["mkfs.xfs", "-q", disk], check=True)
        done = subprocess.run(["mount", "-o", "loop", disk, cache_dir(place)], check=False)
        if done.returncode != 0:
            pytest.skip("this kernel has no XFS")
    try:
        yield
    finally:
        linux.umount(str(cache_dir(place)))


@pytest.mark.parametrize("kind", ["tmpfs", "xfs"])
@pytest.mark.parametrize("mount", loop_mounts)
async def test_a_cache_in_memory_or_on_a_disk_that_shares_blocks(
    place: Place, mount: str, kind: str
) -> None:
    base = layer(1, 8)
    yesterday, today = make_image(place, [base], "old\n"), make_image(place, [base], "new\n")
    settings = caching(place, mount)
    with file_system(place, kind):
        async with running(settings, connect_bus(settings, "test")):
            await mounted(place, yesterday, "a")
            before = free_bytes(cache_dir(place))
            saved = Counted("dray_agent_saved_bytes_total")
            view = await mounted(place, today, "b")
            assert (view["from_cache"], greeting(view)) == (True, "new\n")
            assert cached(place, today).read_bytes() == today.content
            assert saved.grown >= 8 * MEGABYTE
            used = before - free_bytes(cache_dir(place))
            assert (used < MEGABYTE) == (kind == "xfs"), "only XFS shares them"
            for job in "ab":
                await ended(place, job)


def free_bytes(directory: Path) -> int:
    os.sync()
    status = os.statvfs(directory)
    return status.f_bfree * status.f_frsize


NO_DEVICES = """
import sys
from collections.abc import Iterator
from pathlib import Path
from services.node_agent.errors import MountFailedError
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import Source
from shared import linux
image, root = map(Path, sys.argv[1:])
mounter = LoopMounter(root / "probe")
control = root / "control"
control.touch()
linux.mount("/dev/loop-control", str(control), flags=linux.MS_BIND)
linux.mount("none", "/dev", "tmpfs")
Path("/dev/loop-control").touch()
linux.mount(str(control), "/dev/loop-control", flags=linux.MS_BIND)
target = root / "target"
target.mkdir()
try:
    mounter.mount(Source(image, cached=True), target)
except MountFailedError as exc:
    print(exc.message)
"""


@pytest.mark.root
@pytest.mark.parametrize("mount", loop_mounts)
def test_a_node_without_free_loop_devices_says_so(place: Place, mount: str) -> None:
    image = place.image("a")
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", NO_DEVICES, image.path, place.root],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "more loop devices" in done.stdout, mount
