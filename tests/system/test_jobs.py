"""A job is announced, its node mounts the image, and gives it back; also beyond one machine."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.conditions import eventually
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.mongo import running_mongod
from tests.support.registry import DebianRegistry
from tests.support.site import Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts by loop device: needs root"),
]


@pytest.fixture
def image() -> BuiltImage:
    return build_image([layer_of({"etc/motd": File(b"from the image\n")})])


@pytest.fixture
def reference(tmp_path: Path, image: BuiltImage) -> Any:
    with DebianRegistry(tmp_path / "registry") as registry:
        Pusher(registry.url).push(image, "team/app", "1")
        yield f"{registry.host}/team/app:1"


@pytest.fixture
async def site(tmp_path: Path, reference: str) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site") as site:
        await site.up()
        pull = await site.pull(reference)
        view = await site.reached(pull["id"], "READY", "FAILURE")
        assert view["state"] == "READY", view["failure"]
        yield site


async def announce(site: Site, job: str, images: list[str], nodes: list[str]) -> dict[str, Any]:
    body = {"job_id": job, "images": images, "nodes": nodes}
    status, view = await site.ask("POST", "/api/v1/jobs", body)
    assert status == 202, view
    return view


async def staged(site: Site, job: str) -> dict[str, Any]:
    """The job, once no node of it is pending."""
    view: dict[str, Any] = {}

    async def decided() -> bool:
        nonlocal view
        view = (await site.ask("GET", f"/api/v1/jobs/{job}?nodes=all"))[1]
        return bool(view["counts"]["PENDING"] == 0)

    await eventually(decided, within=30)
    return view


def mounts(site: Site) -> list[Path]:
    lines = Path("/proc/mounts").read_text().splitlines()
    places = [Path(line.split()[1]) for line in lines]
    return [place for place in places if place.is_relative_to(site.directory)]


async def test_a_job_finds_its_image_mounted_and_leaves_nothing(
    site: Site, reference: str, image: BuiltImage
) -> None:
    await announce(site, "17", [reference], ["node1"])
    view = await staged(site, "17")
    assert view["counts"]["STAGED"] == 1, view
    (mount,) = mounts(site)
    assert (mount / "etc/motd").read_text() == "from the image\n"
    _, page = await site.ask("GET", "/api/v1/images")
    assert [item["config_digest"] for item in page["items"]] == [image.config_digest]
    assert view["images"] == [page["items"][0]["id"]]
    options = next(
        line.split()[3]
        for line in Path("/proc/mounts").read_text().splitlines()
        if str(mount) in line
    )
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))

    # A second job shares the mount; it stays until the last one leaves.
    await announce(site, "18", [view["images"][0]], ["node1"])
    assert (await staged(site, "18"))["counts"]["STAGED"] == 1
    assert mounts(site) == [mount]
    assert (await site.ask("DELETE", "/api/v1/jobs/17"))[0] == 202
    status, view = await site.ask("GET", "/api/v1/nodes")
    assert (status, view["items"][0]["node"]) == (200, "node1")
    assert mounts(site) == [mount]
    assert (await site.ask("DELETE", "/api/v1/jobs/18"))[0] == 202
    await eventually(lambda: not mounts(site), within=10)


async def test_schedulers_repeat_themselves_and_use_job_ids_again(
    site: Site, reference: str
) -> None:
    first = await announce(site, "17", [reference], ["node1"])
    again = await announce(site, "17", [reference], ["node1"])
    assert again["announced_at"] == first["announced_at"]
    await staged(site, "17")
    body = {"job_id": "17", "images": [reference], "nodes": ["node2"]}
    status, problem = await site.ask("POST", "/api/v1/jobs", body)
    assert (status, problem["code"]) == (409, "conflict")
    assert "release it first" in problem["detail"]
    for _ in range(2):
        assert (await site.ask("DELETE", "/api/v1/jobs/17"))[0] == 202
    await eventually(lambda: not mounts(site), within=10)

    body = {"job_id": "17", "images": [reference], "nodes": ["node1"]}

    async def announced_again() -> dict[str, Any] | None:
        status, view = await site.ask("POST", "/api/v1/jobs", body)
        return view if status == 202 else None  # 409 while nodes are being told of the end

    second = await eventually(announced_again, within=10)
    assert second is not None
    assert second["announced_at"] > first["announced_at"]
    assert (await staged(site, "17"))["counts"]["STAGED"] == 1
    assert len(mounts(site)) == 1


async def test_a_node_without_an_agent_fails_alone_and_says_so(site: Site, reference: str) -> None:
    await announce(site, "17", [reference], ["node1", "absent7"])
    view = await staged(site, "17")
    states = {node["node"]: node for node in view["nodes"]}
    assert states["node1"]["state"] == "STAGED"
    assert states["absent7"]["state"] == "FAILED"
    assert states["absent7"]["failure"]["code"] == "no_agent"


async def test_jobs_that_cannot_be_are_told_why(site: Site, reference: str) -> None:
    missing = {"job_id": "17", "images": ["nobody/nothing:1"], "nodes": ["node1"]}
    status, problem = await site.ask("POST", "/api/v1/jobs", missing)
    assert (status, problem["code"]) == (404, "not_found")
    assert "dray pull" in problem["detail"]
    status, problem = await site.ask("GET", "/api/v1/jobs/unknown")
    assert (status, problem["code"]) == (404, "not_found")
    bad = {"job_id": "../17", "images": [reference], "nodes": ["node1"]}
    status, problem = await site.ask("POST", "/api/v1/jobs", bad)
    assert (status, problem["code"]) == (400, "invalid_input")


async def test_beyond_one_machine_over_rabbitmq_and_mongodb(
    tmp_path: Path, broker_url: str, reference: str, image: BuiltImage
) -> None:
    """Every service its own process, two gateways over one catalog."""
    with running_mongod(tmp_path / "mongo") as mongod:
        settings = {"bus": {"url": broker_url}, "catalog": {"url": mongod.url()}}
        async with (
            Site(tmp_path / "site", settings) as site,
            Site(tmp_path / "site", settings, name="second") as second,
        ):
            await site.start("gateway", "converter", "distributor", "agent")
            await second.start("gateway")
            pull = await site.pull(reference)
            joined = await second.pull(reference)
            assert joined["id"] == pull["id"]
            view = await second.reached(pull["id"], "READY", "FAILURE")
            assert view["state"] == "READY", view["failure"]

            await announce(second, "17", [reference], ["node1"])
            assert (await staged(site, "17"))["counts"]["STAGED"] == 1
            (mount,) = mounts(site)
            assert (mount / "etc/motd").read_text() == "from the image\n"
            site.kill("gateway")
            assert (await second.ask("DELETE", "/api/v1/jobs/17"))[0] == 202
            await eventually(lambda: not mounts(site), within=10)
            for name in ("agent", "distributor", "converter"):
                assert await site.stop(name) == 0
            assert await second.stop("gateway") == 0
            # One id follows the pull through every service.
            for name in ("converter", "distributor"):
                assert pull["id"] in site.log(name)
