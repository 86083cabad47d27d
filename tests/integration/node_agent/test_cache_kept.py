"""What is in a node's cache: bounds, pins, what survives the agent, who may read it."""

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import pytest

from services.node_agent import app
from services.node_agent.app import NodeAgent
from services.node_agent.cache.errors import CacheUnusableError
from services.node_agent.cache.shelf import Shelf
from shared.bus.connect import connect_bus
from shared.bus.topology import GATEWAY_NODES
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import AnyEvent, NodeHeartbeat
from shared.settings.agent import CacheSettings
from tests.support.agents import PATIENCE, Place, ask, greeting, needs_root, running
from tests.support.cached import (
    MEGABYTE,
    Counted,
    Made,
    cache_dir,
    cached,
    caching,
    copies,
    ended,
    layer,
    make_image,
    mounted,
)
from tests.support.conditions import eventually

SOMEBODY = 4242
loop_mounts = [pytest.param("loop", marks=needs_root)]


@pytest.mark.parametrize("mount", loop_mounts)
async def test_what_is_cached_is_readable_for_nobody_else(place: Place, mount: str) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, mount)
    async with running(settings, connect_bus(settings, "test")):
        await mounted(place, image, "j")
        assert cache_dir(place).stat().st_mode & 0o777 == 0o700
        files = [path for path in cache_dir(place).iterdir() if image.image_id in path.name]
        assert {path.suffix for path in files} == {".squashfs", ".json"}
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        await ended(place, "j")


async def test_a_full_cache_evicts_what_was_not_used_longest_and_nothing_in_use(
    place: Place,
) -> None:
    one, two, three = (make_image(place, [layer(n)], f"{n}\n") for n in (1, 2, 3))
    settings = caching(place, "unpack", max_bytes=int(2.5 * one.size))
    evicted = Counted("dray_agent_cache_evictions_total")
    async with running(settings, connect_bus(settings, "test")):
        for job, image in (("a", one), ("b", two)):
            await mounted(place, image, job)
            await ended(place, job)
        await mounted(place, one, "again")  # so it is two's turn
        await mounted(place, three, "c")
        held = {copy["image_id"] for copy in await copies(place)}
        assert held == {one.image_id, three.image_id}
        assert evicted.grown == 1
        assert not cached(place, two).exists()
        # Now both are in use: the third one is mounted in place.
        view = await mounted(place, two, "d")
        assert (view["from_cache"], greeting(view)) == (False, "2\n")
        assert held == {copy["image_id"] for copy in await copies(place)}
        for job in ("again", "c", "d"):
            await ended(place, job)


async def test_what_is_pinned_stays_also_over_a_restart(place: Place) -> None:
    one, two, three = (make_image(place, [layer(n)], f"{n}\n") for n in (1, 2, 3))
    settings = caching(
        place, "unpack", policy="in_place", max_bytes=int(2.5 * one.size), pinned=[two.image_id]
    )
    async with running(settings, connect_bus(settings, "test")):
        body = {"content_digest": one.content_digest, "size": one.size}
        assert await ask(place, "PUT", f"/v1/cache/{one.image_id}", body) == (204, {})
        view = await mounted(place, one, "a")
        assert view["from_cache"] is True  # whatever the policy is
        assert (await mounted(place, two, "b"))["from_cache"] is True
        assert (await mounted(place, three, "c"))["from_cache"] is False
        for job in "abc":
            await ended(place, job)
    settings = caching(place, "unpack", max_bytes=int(2.5 * one.size), pinned=[two.image_id])
    async with running(settings, connect_bus(settings, "test")):
        assert (await mounted(place, three, "c"))["from_cache"] is False
        await ended(place, "c")
        assert await ask(place, "DELETE", f"/v1/cache/{one.image_id}") == (204, {})
    async with running(settings, connect_bus(settings, "test")):
        assert (await mounted(place, three, "c"))["from_cache"] is True
        held = {copy["image_id"] for copy in await copies(place)}
        assert held == {two.image_id, three.image_id}
        await ended(place, "c")


async def test_without_a_cache_nothing_can_be_pinned(place: Place) -> None:
    image = make_image(place, [layer(1)])
    settings = place.settings("unpack")
    async with running(settings, connect_bus(settings, "test")):
        body = {"content_digest": image.content_digest, "size": image.size}
        status, answer = await ask(place, "PUT", f"/v1/cache/{image.image_id}", body)
        assert (status, answer["code"]) == (409, "cache_off")


async def test_found_copies_are_believed_only_as_far_as_they_look_untouched(place: Place) -> None:
    names = ("whole", "touched", "flipped", "short", "replaced", "alone")
    images = {name: make_image(place, [layer(n)], f"{name}\n") for n, name in enumerate(names)}
    settings = caching(place, "unpack")
    async with running(settings, connect_bus(settings, "test")):
        for name, image in images.items():
            await mounted(place, image, name)
            await ended(place, name)
    files = {name: cached(place, image) for name, image in images.items()}
    os.utime(files["touched"])
    with files["flipped"].open("r+b") as file:
        file.seek(MEGABYTE // 2)
        file.write(b"flipped")
    os.truncate(files["short"], 4096)
    files["replaced"].write_bytes(bytes(images["replaced"].size))
    files["alone"].with_suffix(".json").unlink()
    left = cache_dir(place) / f".{images['whole'].image_id}.squashfs.00112233445566778899.partial"
    left.write_bytes(b"of an agent that was killed")
    async with running(settings, connect_bus(settings, "test")):
        assert not left.exists()
        ids = {image.image_id: name for name, image in images.items()}
        found = {ids[copy["image_id"]]: copy["sound"] for copy in await copies(place)}
        assert found == {"whole": True, "touched": False, "flipped": False}
        read = Counted("dray_agent_copied_bytes_total")
        for name in ("whole", "touched"):
            assert (await mounted(place, images[name], name))["from_cache"] is True
            assert read.grown == 0, "it is read where it is"
        assert (await mounted(place, images["flipped"], "flipped"))["from_cache"] is True
        assert read.grown > 0
        assert files["flipped"].read_bytes() == images["flipped"].content
        for name in ("whole", "touched", "flipped"):
            await ended(place, name)


async def test_two_agents_never_share_a_cache(place: Place, tmp_path: Path) -> None:
    settings = caching(place, "unpack")
    other = Place(tmp_path)
    theirs = caching(other, "unpack", dir=str(cache_dir(place)))
    image = make_image(other, [layer(1)])
    async with (
        running(settings, connect_bus(settings, "test")),
        running(theirs, connect_bus(theirs, "test")) as late,
    ):
        await _does_without(late, other, image, "another agent has its cache in")
        assert (await ask(place, "GET", "/v1/status"))[1]["cache"] is not None


async def _does_without(agent: NodeAgent, place: Place, image: Made, why: str) -> None:
    """A job has its image all the same, and whoever looks sees that there is no cache."""
    view = await mounted(place, image, "j")
    assert view["from_cache"] is False
    assert greeting(view) == "hello\n"
    assert (await ask(place, "GET", "/v1/status"))[1]["cache"] is None
    problem = (await agent.checks())["cache"] or ""
    assert problem.startswith("agent.cache.dir: ")
    assert why in problem
    assert "mounted in place until the agent is started again" in problem
    await ended(place, "j")


async def test_a_node_whose_cache_cannot_be_used_does_without(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    image = make_image(place, [layer(1)])
    (place.root / "file").touch()
    settings = caching(place, "unpack", dir=str(place.root / "file/cache"))
    async with running(settings, connect_bus(settings, "test")) as agent:
        await _does_without(agent, place, image, "Not a directory")
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "cache_not_used" in line]
    assert "error" in said.split("cache_not_used")[0]


async def test_heartbeats_of_a_node_that_does_without_name_no_cache(place: Place) -> None:
    (place.root / "file").touch()
    document = caching(place, "unpack", dir=str(place.root / "file/cache")).model_dump()
    document["agent"]["heartbeat"] = 0.2
    document["bus"]["url"] = "embedded:"
    document["catalog"]["url"] = "sqlite:"
    settings = Settings.model_validate(document)
    bus = connect_bus(settings, "test")
    heard: list[NodeHeartbeat] = []

    async def hear(event: AnyEvent) -> None:
        if isinstance(event, NodeHeartbeat):
            heard.append(event)

    await bus.open(Deadline.after(PATIENCE))
    await bus.consume(GATEWAY_NODES, hear, slots=1)
    async with running(settings, bus):
        await eventually(lambda: len(heard) > 0, within=PATIENCE)
    assert all(beat.capacity is not None and beat.capacity.cache is None for beat in heard)


async def test_a_cache_on_a_disk_that_hangs_is_not_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, "unpack")
    disk = threading.Event()
    monkeypatch.setattr(app, "CACHE_SECONDS", 0.1)
    monkeypatch.setattr(Shelf, "open", lambda _: disk.wait(60))
    async with running(settings, connect_bus(settings, "test")) as agent:
        await _does_without(
            agent, place, image, f"timed out after 0.1 s while opening {cache_dir(place)}"
        )
        disk.set()


@pytest.mark.root
async def test_a_disk_that_is_read_only_is_tried_again_by_the_next_agent(place: Place) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, "unpack")
    disk = cache_dir(place)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=16m", "dray-test", disk], check=True)
    try:
        async with running(settings, connect_bus(settings, "test")) as agent:
            await _does_without(agent, place, image, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        async with running(settings, connect_bus(settings, "test")) as agent:
            assert (await mounted(place, image, "j"))["from_cache"] is True
            assert (await agent.checks())["cache"] is None
            await ended(place, "j")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.root
async def test_an_agent_never_takes_copies_from_a_directory_of_somebody_elses(
    place: Place,
) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, "unpack")
    async with running(settings, connect_bus(settings, "test")) as agent:
        await mounted(place, image, "j")
        await ended(place, "j")
        assert (await agent.checks())["cache"] is None
    os.chown(cache_dir(place), SOMEBODY, SOMEBODY)
    async with running(settings, connect_bus(settings, "test")) as agent:
        await _does_without(agent, place, image, f"belongs to uid {SOMEBODY}")


@pytest.mark.root
def test_a_directory_of_somebody_elses_is_no_place_for_a_cache(place: Place) -> None:
    theirs = cache_dir(place)
    theirs.mkdir(mode=0o777)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    with pytest.raises(CacheUnusableError, match=rf"belongs to uid {SOMEBODY}"):
        Shelf(theirs, CacheSettings()).open()
    os.chown(theirs, 0, 0)
    shelf = Shelf(theirs, CacheSettings())
    shelf.open()
    shelf.close()


@pytest.mark.root
async def test_what_others_have_put_there_before_is_not_believed(place: Place) -> None:
    """On a disk that everybody may write to, until the first agent closes the directory."""
    planted, other = (make_image(place, [layer(n)], f"{n}\n") for n in (1, 2))
    settings = caching(place, "unpack")
    async with running(settings, connect_bus(settings, "test")):
        await mounted(place, planted, "j")
        await ended(place, "j")
    for suffix in (".squashfs", ".json"):
        os.chown(cached(place, planted).with_suffix(suffix), SOMEBODY, SOMEBODY)
    os.mkfifo(cached(place, other).with_suffix(".json"))  # to read it would take for ever
    outside = place.root / "outside"
    lock = cache_dir(place) / ".lock"
    lock.unlink()
    lock.symlink_to(outside)
    os.chown(lock, SOMEBODY, SOMEBODY, follow_symlinks=False)
    shelf = Shelf(cache_dir(place), CacheSettings())
    opening = threading.Thread(target=shelf.open, daemon=True)
    opening.start()
    await asyncio.to_thread(opening.join, 20)
    assert not opening.is_alive()
    assert shelf.copies == ()
    assert not outside.exists()
    assert [path.name for path in cache_dir(place).iterdir()] == [".lock"]
    shelf.close()
