"""Copies of images on a node: made once, checked, and never in a job's way."""

import asyncio
import os
from pathlib import Path

import pytest

from shared.bus.connect import connect_bus
from shared.bus.topology import GATEWAY_NODES
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import AnyEvent, NodeCache, NodeHeartbeat, NodeStaged
from tests.support.agents import PATIENCE, Place, ask, greeting, needs_root, real_mounts, running
from tests.support.cached import (
    MEGABYTE,
    Counted,
    allocation,
    cached,
    caching,
    copies,
    ended,
    layer,
    make_image,
    mounted,
)
from tests.support.conditions import eventually

loop_mounts = [pytest.param("loop", marks=needs_root)]


@pytest.mark.parametrize("mount", real_mounts)
async def test_jobs_share_one_copy_that_stays_when_they_have_ended(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1, 3)], "hello from the cache\n")
    settings = caching(place, mount)
    read, hits = Counted("dray_agent_copied_bytes_total"), Counted("dray_agent_cache_hits_total")
    async with running(settings, connect_bus(settings, "test")):
        views = await asyncio.gather(*(mounted(place, image, f"job{n}") for n in range(10)))
        assert {greeting(view) for view in views} == {"hello from the cache\n"}
        assert {view["from_cache"] for view in views} == {True}
        assert cached(place, image).read_bytes() == image.content
        assert 3 * MEGABYTE < read.grown <= image.size
        assert [copy["in_use"] for copy in await copies(place)] == [True]
        for n in range(10):
            await ended(place, f"job{n}")
        assert place.standing() == []
        assert [copy["in_use"] for copy in await copies(place)] == [False]
        before = read.grown
        assert (await mounted(place, image, "later"))["from_cache"] is True
        assert read.grown == before
        assert hits.grown == 1
        await ended(place, "later")


@pytest.mark.parametrize("mount", loop_mounts)
async def test_a_copy_is_mounted_past_the_page_cache_where_its_disk_can(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, mount)
    async with running(settings, connect_bus(settings, "test")):
        view = await mounted(place, image, "j")
        try:
            os.close(os.open(cached(place, image), os.O_RDONLY | os.O_DIRECT))
        except OSError:
            pytest.skip("this file system has no direct I/O")
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        device = next(line for line in lines if view["path"] in line).split(" - ")[1].split()[1]
        assert (Path("/sys/block") / Path(device).name / "loop/dio").read_text() == "1\n"
        assert greeting(view) == "hello\n"
        await ended(place, "j")


async def test_a_new_image_brings_only_what_the_node_lacks(place: Place) -> None:
    base = layer(1, 4)
    yesterday = make_image(place, [base, layer(2)], "yesterday\n")
    today = make_image(place, [base, layer(3)], "today\n")
    settings = caching(place, "unpack")
    async with running(settings, connect_bus(settings, "test")):
        await mounted(place, yesterday, "a")
        read, saved = (
            Counted("dray_agent_copied_bytes_total"),
            Counted("dray_agent_saved_bytes_total"),
        )
        view = await mounted(place, today, "b")
        assert greeting(view) == "today\n"
        assert cached(place, today).read_bytes() == today.content
        assert read.grown < 1.2 * MEGABYTE
        assert saved.grown >= 4 * MEGABYTE
        for job in "ab":
            await ended(place, job)


async def test_a_damaged_donor_is_found_out_and_its_parts_are_fetched(place: Place) -> None:
    base = layer(1, 2)
    yesterday, today = make_image(place, [base], "old\n"), make_image(place, [base], "new\n")
    settings = caching(place, "unpack")
    async with running(settings, connect_bus(settings, "test")):
        await mounted(place, yesterday, "a")
        with cached(place, yesterday).open("r+b") as file:  # as a dying disk does
            file.seek(MEGABYTE)
            file.write(b"flipped")
        read = Counted("dray_agent_copied_bytes_total")
        await mounted(place, today, "b")
        assert cached(place, today).read_bytes() == today.content
        assert read.grown > 2 * MEGABYTE
        sound = {copy["image_id"]: copy["sound"] for copy in await copies(place)}
        assert sound == {today.image_id: True, yesterday.image_id: False}
        for job in "ab":
            await ended(place, job)
        # Asked for again, it is read in full, and made anew.
        assert (await mounted(place, yesterday, "c"))["from_cache"] is True
        assert cached(place, yesterday).read_bytes() == yesterday.content
        await ended(place, "c")


async def test_a_damaged_shared_file_fails_its_job_with_the_reason(place: Place) -> None:
    image = make_image(place, [layer(1, 2)])
    with image.path.open("r+b") as file:
        file.seek(MEGABYTE)
        file.write(b"flipped")
    settings = caching(place, "unpack")
    async with running(settings, connect_bus(settings, "test")):
        for job in ("first", "second"):
            status, answer = await ask(place, "POST", "/v1/mounts", image.request(job))
            assert (status, answer["code"]) == (500, "image_corrupt")
        assert await copies(place) == []
        assert not cached(place, image).exists()
        image.restore()
        assert (await mounted(place, image, "third"))["from_cache"] is True
        await ended(place, "third")


@pytest.mark.parametrize("trust", ["another image's", "none"])
async def test_what_nobody_vouches_for_is_mounted_in_place(place: Place, trust: str) -> None:
    image, other = make_image(place, [layer(1)]), make_image(place, [layer(2)])
    image.sidecar.write_text("{}" if trust == "none" else other.sidecar.read_text())
    settings = caching(place, "unpack")
    async with running(settings, connect_bus(settings, "test")):
        view = await mounted(place, image, "j")
        assert (view["from_cache"], greeting(view)) == (False, "hello\n")
        assert not cached(place, image).exists()
        await ended(place, "j")


@pytest.mark.parametrize("mount", loop_mounts)
async def test_a_slow_copy_lets_the_job_start_in_place_and_later_ones_have_it(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1, 2)])
    settings = caching(place, mount, patience=0.2, rate=MEGABYTE)
    async with running(settings, connect_bus(settings, "test")):
        first = await mounted(place, image, "impatient")
        assert (first["from_cache"], greeting(first)) == (False, "hello\n")
        with (Path(first["path"]) / "greeting").open() as held:

            async def copied() -> bool:
                return len(await copies(place)) == 1

            await eventually(copied, within=PATIENCE)
            second = await mounted(place, image, "later")
            assert second["path"] == first["path"]
            assert (second["from_cache"], greeting(second)) == (True, "hello\n")
            assert held.read() == "hello\n"
        await ended(place, "impatient")
        assert greeting(second) == "hello\n"
        await ended(place, "later")
        assert place.standing() == []


@pytest.mark.parametrize("mount", loop_mounts)
async def test_an_idle_shared_directory_is_used_in_place_and_a_busy_one_is_copied(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1)])
    for busy_seconds, from_cache in ((60.0, False), (0.0, True)):
        settings = caching(place, mount, policy="copy_when_busy", busy_seconds=busy_seconds)
        async with running(settings, connect_bus(settings, "test")):
            assert (await mounted(place, image, "j"))["from_cache"] is from_cache
            await ended(place, "j")


@pytest.mark.parametrize("mount", loop_mounts)
async def test_a_replaced_image_leaves_running_jobs_what_they_have(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, mount)
    async with running(settings, connect_bus(settings, "test")):
        view = await mounted(place, image, "j")
        image.path.rename(image.path.with_suffix(".old"))
        image.path.write_bytes(b"another one")
        cached(place, image).unlink()
        assert greeting(view) == "hello\n"
        assert len((Path(view["path"]) / "data1").read_bytes()) == MEGABYTE
        await ended(place, "j")


async def test_the_gateway_hears_of_the_cache_and_of_jobs_that_fell_back(place: Place) -> None:
    image, unsure = make_image(place, [layer(1)]), make_image(place, [layer(2)])
    unsure.sidecar.write_text("{}")
    settings = caching(place, "unpack", max_bytes=64 * MEGABYTE)
    document = settings.model_dump()
    document["agent"]["heartbeat"] = 0.2
    document["bus"]["url"] = "embedded:"
    document["catalog"]["url"] = "sqlite:"
    settings = Settings.model_validate(document)
    bus = connect_bus(settings, "test")
    heard: list[AnyEvent] = []

    async def hear(event: AnyEvent) -> None:
        heard.append(event)

    await bus.open(Deadline.after(PATIENCE))
    await bus.consume(GATEWAY_NODES, hear, slots=1)
    async with running(settings, bus):
        for job, wanted in (("1", image), ("2", unsure)):
            await bus.publish(allocation(job, wanted), Deadline.after(PATIENCE))

        def staged() -> dict[str, bool]:
            return {e.job_id: e.in_place for e in heard if isinstance(e, NodeStaged)}

        await eventually(lambda: len(staged()) == 2, within=PATIENCE)
        assert staged() == {"1": False, "2": True}

        def cache() -> NodeCache | None:
            last = [event for event in heard if isinstance(event, NodeHeartbeat)][-1].capacity
            return None if last is None else last.cache

        expected = NodeCache(
            policy="copy", max_bytes=64 * MEGABYTE, used_bytes=image.size, images=1
        )
        await eventually(lambda: cache() == expected, within=PATIENCE)
        for job in "12":
            await ended(place, job)


@pytest.mark.parametrize("mount", loop_mounts)
async def test_fifty_jobs_with_five_images_at_once_stage_each_image_once(
    place: Place, mount: str
) -> None:
    base = layer(0, 2)
    images = [make_image(place, [base, layer(n)], f"{n}\n") for n in range(1, 6)]
    settings = caching(place, mount, copies=1)
    read = Counted("dray_agent_copied_bytes_total")
    staged = Counted("dray_agent_staging_seconds_count", **{"how": mount, "from": "cache"})
    bus = connect_bus(settings, "test")
    async with running(settings, bus):
        for number in range(50):
            await bus.publish(
                allocation(f"e{number}", images[number % 5]), Deadline.after(PATIENCE)
            )
        answers = await asyncio.gather(
            *(
                ask(place, "POST", f"/v1/jobs/e{number}/prepare", {"wait": 60})
                for number in range(50)
            )
        )
        assert {view["state"] for _, view in answers} == {"ready"}
        texts = [greeting(view["mounts"][0]) for _, view in answers]
        assert texts == [f"{number % 5 + 1}\n" for number in range(50)]
        assert staged.grown == 5
        assert read.grown < 2.2 * MEGABYTE + 5 * 1.2 * MEGABYTE
        for number in range(50):
            await ended(place, f"e{number}")
        assert place.standing() == []


@pytest.mark.parametrize("mount", loop_mounts)
async def test_who_names_other_bytes_gets_no_copy_and_spoils_nobody_s(
    place: Place, mount: str
) -> None:
    image = make_image(place, [layer(1)])
    settings = caching(place, mount)
    async with running(settings, connect_bus(settings, "test")):
        for number in range(3):
            wrong = image.request(f"w{number}") | {"content_digest": f"{number:064x}"}
            status, view = await ask(place, "POST", "/v1/mounts", wrong)
            assert (status, view["from_cache"]) == (200, False)
            await ended(place, f"w{number}")
        assert (await mounted(place, image, "right"))["from_cache"] is True
        await ended(place, "right")
