"""Two systems that are served from one conversion, by one distributor or by one for each."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.distributor.sidecars import Sidecar
from shared.image.making.verify import verify_image
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.registry import DebianRegistry
from tests.support.site import Site

SYSTEMS = ("cluster", "second")


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


def image_of_two_layers() -> BuiltImage:
    return build_image(
        [layer_of({"base": File(noise(1 << 20))}), layer_of({"etc/motd": File(b"upper\n")})]
    )


def systems(root: Path) -> dict[str, Any]:
    return {name: {"image_dir": str(root / name)} for name in SYSTEMS}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    settings = {"systems": systems(tmp_path / "images"), "converter": {"slots": 1}}
    async with Site(tmp_path / "site", settings) as site:
        await site.up()
        yield site


async def pulled(site: Site, reference: str, system: str) -> dict[str, Any]:
    body = {"reference": reference, "system": system}
    status, pull = await site.ask("POST", "/api/v1/pulls", body)
    assert status in {200, 202}, pull
    view = await site.reached(pull["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
    image: dict[str, Any] = view["image"]
    return image


def packed(log: str) -> list[tuple[int, int]]:
    """Layers of each conversion, and how many of them were there already."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [
        (line["layers"], line["reused"]) for line in lines if line.get("event") == "layers_packed"
    ]


async def test_what_one_system_pulled_the_other_only_places(
    site: Site, registry: DebianRegistry, tmp_path: Path
) -> None:
    Pusher(registry.url).push(image_of_two_layers(), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    first = await pulled(site, reference, "cluster")
    second = await pulled(site, reference, "second")
    assert first["id"] == second["id"]
    files = [tmp_path / "images" / name / f"{first['id']}.squashfs" for name in SYSTEMS]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert packed(site.log("up")) == [(2, 0), (2, 2)], "each layer is converted once"
    # Each lives by itself.
    assert (await site.ask("DELETE", f"/api/v1/images/cluster/docker/{reference}"))[0] == 202
    status, _ = await site.ask("GET", f"/api/v1/images/second/docker/{reference}")
    assert status == 200


async def test_each_system_may_have_a_distributor_of_its_own(
    tmp_path: Path, registry: DebianRegistry, broker_url: str
) -> None:
    Pusher(registry.url).push(image_of_two_layers(), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    shared = {"systems": systems(tmp_path / "images"), "bus": {"url": broker_url}}
    own = [{**shared, "distributor": {"systems": [name]}} for name in SYSTEMS]
    async with (
        Site(tmp_path / "site", own[0]) as site,
        Site(tmp_path / "site", own[1], name="other") as other,
    ):
        await site.start()
        await other.start("distributor")
        images = [await pulled(site, reference, name) for name in SYSTEMS]
        assert images[0]["id"] == images[1]["id"]
        for which, name in ((site, "cluster"), (other, "second")):
            written = [
                json.loads(line)["system"]
                for line in which.log("distributor").splitlines()
                if '"image_placed"' in line
            ]
            assert written == [name], "by the one that serves it"
        assert [layers for layers, _ in packed(site.log("converter"))] == [2, 2]
        assert sum(reused for _, reused in packed(site.log("converter"))) == 2
    for name in SYSTEMS:
        image = tmp_path / "images" / name / f"{images[0]['id']}.squashfs"
        sidecar = Sidecar.model_validate_json(image.with_suffix(".json").read_bytes())
        verify_image(image, sidecar.recipe)
