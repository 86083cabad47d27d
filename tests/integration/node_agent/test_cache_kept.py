"""What is in a node's cache: bounds, pins, what survives the agent, who may read it."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from services.node_agent.cache.shelf import Shelf
from shared.bus.connect import connect_bus
from shared.errors import ConfigError
from shared.settings.agent import CacheSettings
from tests.support.agents import Place, ask, greeting, needs_root, running
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
)

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
    async with running(settings, connect_bus(settings, "test")):
        with pytest.raises(ConfigError, match=r"agent\.cache\.dir"):
            async with running(theirs, connect_bus(theirs, "test")):
                pass


@pytest.mark.root
def test_a_directory_of_somebody_elses_is_no_place_for_a_cache(place: Place) -> None:
    theirs = cache_dir(place)
    theirs.mkdir(mode=0o777)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    with pytest.raises(ConfigError, match=rf"belongs to uid {SOMEBODY}"):
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
