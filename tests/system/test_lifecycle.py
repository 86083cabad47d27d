"""Images come, are used, expire and go, with real services, mounts, clocks and files."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.conditions import eventually
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.registry import DebianRegistry
from tests.support.site import Site

SHORT = {"removal_interval": 0.3, "removal_grace": 1.0}


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


def built(text: bytes) -> BuiltImage:
    return build_image([layer_of({"etc/motd": File(text)})])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site", {"distributor": SHORT}) as site:
        yield site


async def ready(site: Site, reference: str) -> str:
    pull = await site.pull(reference)
    view = await site.reached(pull["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
    return str(view["image"]["id"])


def path_of(reference: str) -> str:
    return f"/api/v1/images/cluster/docker/{reference}"


def standing(site: Site) -> list[str]:
    return sorted(path.stem for path in site.images.glob("*.squashfs"))


def bytes_kept(site: Site) -> list[Path]:
    kinds = {".squashfs", ".removed", ".meta", ".json"}
    return [path for path in site.images.rglob("*") if path.suffix in kinds]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts by loop device: needs root")
async def test_a_job_keeps_the_image_that_expires_under_it(site: Site, registry: Any) -> None:
    Pusher(registry.url).push(built(b"from the image\n"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    await site.up()
    image = await ready(site, reference)
    body = {"job_id": "17", "images": [reference], "nodes": ["node1"]}
    status, job = await site.ask("POST", "/api/v1/jobs", body)
    assert status == 202, job

    async def mounted() -> Path | None:
        view = (await site.ask("GET", "/api/v1/jobs/17"))[1]
        if view["counts"]["STAGED"] != 1:
            return None
        lines = Path("/proc/mounts").read_text().splitlines()
        places = [Path(line.split()[1]) for line in lines]
        return next(place for place in places if place.is_relative_to(site.directory))

    mount = await eventually(mounted, within=30)
    assert mount is not None
    status, expired = await site.ask("DELETE", path_of(reference))
    assert (status, [each["state"] for each in expired["items"]]) == (202, ["EXPIRING"])
    assert (await site.ask("GET", path_of(reference)))[0] == 404

    await eventually(lambda: "image_held_by_job" in site.log("up"), within=10)
    assert standing(site) == [image]
    assert (mount / "etc/motd").read_text() == "from the image\n"
    another = {"job_id": "18", "images": [image], "nodes": ["node1"]}
    assert (await site.ask("POST", "/api/v1/jobs", another))[0] == 404

    assert (await site.ask("DELETE", "/api/v1/jobs/17"))[0] == 202
    await eventually(lambda: not standing(site), within=20)
    await eventually(lambda: not bytes_kept(site), within=20)
    # It can be had again.
    assert await ready(site, reference) == image
    assert site.check_images() == 1


async def test_an_image_goes_with_its_last_reference(site: Site, registry: Any) -> None:
    push = Pusher(registry.url).push
    first = built(b"first\n")
    for tag in ("1", "latest"):
        push(first, "team/app", tag)
    await site.up()
    one, latest = (f"{registry.host}/team/app:{tag}" for tag in ("1", "latest"))
    image = await ready(site, one)
    assert await ready(site, latest) == image

    push(built(b"second\n"), "team/app", "latest")
    moved = await ready(site, latest)
    assert moved != image
    status, _ = await site.ask("DELETE", path_of(one))
    assert status == 202
    # Somebody may have looked the id up: what the tag stood for stays under its digest.
    status, old = await site.ask("GET", f"/api/v1/images/_/id/{image}")
    assert (status, old["id"]) == (200, image)
    assert old["reference"] == f"{registry.host}/team/app@{first.digest}"
    assert standing(site) == sorted([image, moved])

    assert (await site.ask("PUT", f"{path_of(latest)}/pin"))[1]["items"][0]["pinned"] is True
    assert (await site.ask("POST", "/api/v1/admin/expire"))[1]["expired"] == 0
    assert (await site.ask("DELETE", f"/api/v1/images/_/id/{image}"))[0] == 202
    await eventually(lambda: standing(site) == [moved], within=20)
    status, gone = await site.ask("DELETE", path_of(latest))
    assert (status, gone["items"][0]["pinned"]) == (202, False)
    await eventually(lambda: not bytes_kept(site), within=20)


async def test_a_removal_survives_that_everybody_dies(site: Site, registry: Any) -> None:
    Pusher(registry.url).push(built(b"text\n"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    await site.up()
    await ready(site, reference)
    status, _ = await site.ask("DELETE", path_of(reference))
    assert status == 202
    site.kill("up")
    await site.up()
    await eventually(lambda: not standing(site), within=90)
    await eventually(lambda: not bytes_kept(site), within=20)


async def test_a_removal_waits_for_a_distributor_that_is_away(
    tmp_path: Path, registry: Any, broker_url: str
) -> None:
    Pusher(registry.url).push(built(b"text\n"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    settings = {"distributor": SHORT, "bus": {"url": broker_url}}
    async with Site(tmp_path / "site", settings) as site:
        await site.start()
        image = await ready(site, reference)
        site.kill("distributor")
        assert (await site.ask("DELETE", path_of(reference)))[0] == 202
        site.kill("gateway")
        await site.start("gateway")
        assert standing(site) == [image]
        await site.start("distributor")
        await eventually(lambda: not standing(site), within=30)
        await eventually(lambda: not bytes_kept(site), within=20)


def examiner(directory: Path) -> Path:
    """Lets in what is not called evil."""
    script = directory / "examine"
    script.write_text("#!/bin/sh\nif grep -q team/evil; then echo it is evil; exit 1; fi\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


async def test_what_is_not_let_in_is_said_and_nothing_of_it_placed(
    tmp_path: Path, registry: Any
) -> None:
    push = Pusher(registry.url).push
    for name in ("good", "evil", "denied", "another"):
        push(built(f"{name}\n".encode()), f"team/{name}", "1")
    push(built(noise(100_000)), "team/huge", "1")
    admission = {
        "command": [str(examiner(tmp_path))],
        "deny_registries": ["*/team/denied"],
        "advice": "ask security",
    }
    settings = {"admission": admission, "quotas": {"user_images": 1, "system_bytes": 50_000}}
    async with Site(tmp_path / "site", settings) as site:
        await site.up()
        denied = {"reference": f"{registry.host}/team/denied:1"}
        status, problem = await site.ask("POST", "/api/v1/pulls", denied)
        assert (status, problem["code"]) == (403, "not_admitted")
        assert "ask security" in problem["detail"]

        pull = await site.pull(f"{registry.host}/team/evil:1")
        view = await site.reached(pull["id"], "READY", "FAILURE")
        assert view["failure"]["code"] == "not_admitted"
        assert view["failure"]["message"].endswith("is not let in: it is evil; ask security")
        assert standing(site) == []

        pull = await site.pull(f"{registry.host}/team/huge:1")
        view = await site.reached(pull["id"], "READY", "FAILURE")
        assert view["failure"]["code"] == "quota_exceeded"
        assert "it can never fit" in view["failure"]["message"]
        assert standing(site) == []

        image = await ready(site, f"{registry.host}/team/good:1")
        another = {"reference": f"{registry.host}/team/another:1"}
        status, problem = await site.ask("POST", "/api/v1/pulls", another)
        assert (status, problem["code"]) == (403, "quota_exceeded")
        assert "dray rm" in problem["detail"]
        status, quota = await site.ask("GET", "/api/v1/quota")
        assert status == 200
        [held] = quota["items"]
        size = (site.images / f"{image}.squashfs").stat().st_size
        assert (held["images"], held["bytes"], held["system_bytes"]) == (1, size, size)
        assert quota["limits"] == {"images": 1, "bytes": None, "pulls": None}
