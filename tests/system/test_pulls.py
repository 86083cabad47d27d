"""Pulls as users see them, in the one process of `dray up`, against a real registry."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.conditions import eventually
from tests.support.gate import Gate
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.metrics import Scraped, scraped
from tests.support.noise import noise
from tests.support.ports import free_port
from tests.support.registry import DebianRegistry
from tests.support.site import Site, but_for_use

MEGABYTE = 1 << 20


def image_of(text: str) -> BuiltImage:
    """A base that all share, and a layer of its own."""
    base = layer_of({"base": File(noise(2 * MEGABYTE))})
    return build_image([base, layer_of({"etc/version": File(text.encode())})])


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site") as site:
        await site.up()
        yield site


@pytest.mark.parametrize("kind", ["docker", "oci"])
async def test_an_image_becomes_ready_and_can_be_looked_up(
    kind: Any, registry: DebianRegistry, site: Site
) -> None:
    image = build_image([layer_of({"etc/motd": File(b"hello\n")})], kind=kind)
    Pusher(registry.url).push(image, "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    pull = await site.pull(reference)
    view = await site.reached(pull["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]

    path = f"/api/v1/images/cluster/docker/{quote(reference, safe='')}"
    status, found = await site.ask("GET", path)
    assert (status, found["config_digest"]) == (200, image.config_digest)
    assert found["manifest_digest"] == image.digest
    status, page = await site.ask("GET", "/api/v1/images?system=cluster")
    assert page["items"] == [found]
    assert (site.images / f"{found['id']}.squashfs").stat().st_size == found["size"]
    assert site.check_images() == 1


async def test_two_requests_join_one_pull(registry: DebianRegistry, site: Site) -> None:
    Pusher(registry.url).push(image_of("1"), "team/app", "1")
    async with Gate(registry.port) as gate:
        gate.hold_after(MEGABYTE)
        # Written differently, meant the same.
        first, second = await asyncio.gather(
            site.pull(f"{gate.host}/team/app:1"), site.pull(f"{gate.host}/team/app:1")
        )
        assert first["id"] == second["id"]
        await site.reached(first["id"], "PULLING")
        third = await site.pull(f"{gate.host}/team/app:1")
        assert (third["id"], third["state"]) == (first["id"], "PULLING")
        gate.open()
        view = await site.reached(first["id"], "READY", "FAILURE")
    assert (view["state"], view["attempt"]) == ("READY", 1)


async def test_an_unchanged_image_is_answered_at_once(registry: DebianRegistry, site: Site) -> None:
    Pusher(registry.url).push(image_of("1"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    first = await site.reached((await site.pull(reference))["id"], "READY", "FAILURE")
    status, again = await site.ask("POST", "/api/v1/pulls", {"reference": reference})
    assert (status, again["state"]) == (200, "READY"), "in the very answer, without polling"
    assert but_for_use(again["image"]) == but_for_use(first["image"])


async def test_a_damaged_image_is_made_again_by_a_forced_pull(
    registry: DebianRegistry, site: Site
) -> None:
    Pusher(registry.url).push(image_of("1"), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    first = await site.reached((await site.pull(reference))["id"], "READY", "FAILURE")
    placed = site.images / f"{first['image']['id']}.squashfs"
    content = placed.read_bytes()
    placed.write_bytes(content[:100_000])
    body = {"reference": reference, "force": True}
    status, again = await site.ask("POST", "/api/v1/pulls", body)
    assert status in {200, 202}
    view = await site.reached(again["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
    assert placed.read_bytes() == content


async def test_a_moved_tag_is_pulled_while_the_old_image_stays_usable(
    registry: DebianRegistry, site: Site
) -> None:
    old, new = image_of("old"), image_of("new")
    Pusher(registry.url).push(old, "team/app", "latest")
    async with Gate(registry.port) as gate:
        reference = f"{gate.host}/team/app:latest"
        await site.reached((await site.pull(reference))["id"], "READY", "FAILURE")
        Pusher(registry.url).push(new, "team/app", "latest")
        # The check, the manifest and the config pass; the new layer is held.
        gate.hold_after(2 * len(new.manifest) + len(new.config) + 1500)
        pull = (await site.pull(reference))["id"]
        view = await site.reached(pull, "PULLING")
        assert view["image"]["config_digest"] == old.config_digest
        path = f"/api/v1/images/_/docker/{quote(reference, safe='')}"
        assert (await site.ask("GET", path))[1]["config_digest"] == old.config_digest
        gate.open()
        view = await site.reached(pull, "READY", "FAILURE")
        assert view["image"]["config_digest"] == new.config_digest
    steps = [step["state"] for step in view["steps"]]
    assert (steps[0], steps[-2:]) == ("INIT", ["TRANSFER", "READY"])
    assert [step["at"] for step in view["steps"]] == sorted(step["at"] for step in view["steps"])
    assert (await site.ask("GET", f"/api/v1/pulls/{pull}"))[1]["steps"] == view["steps"]
    assert 'reused": 1' in site.log("up"), "the base layer was not converted again"
    check_metrics(scraped(await site.metrics()), old)
    assert site.check_images() == 2, "a job may still have the old one mounted"


def check_metrics(found: Scraped, image: BuiltImage) -> None:
    """Two pulls of images that share their base."""
    assert found.of("dray_pull_seconds_count", outcome="placed") == 2
    for state in ("INIT", "PULLING", "TRANSFER"):
        assert found.of("dray_pull_stage_seconds_count", state=state) == 2
    assert found.of("dray_pull_stage_seconds_sum") <= found.of("dray_pull_seconds_sum")
    assert found.of("dray_packs_total", outcome="made") == 3
    assert found.of("dray_packs_total", outcome="found") == 1
    assert found.of("dray_pack_seconds_count") == 3
    assert found.of("dray_pack_saved_bytes_total") == len(image.layers[0].blob)
    downloaded = found.of("dray_pack_bytes_total", what="downloaded")
    assert downloaded >= len(image.layers[0].blob) > 2 * MEGABYTE
    for what in ("inflated", "packed"):
        assert found.of("dray_pack_bytes_total", what=what) > 2 * MEGABYTE
    assert found.of("dray_registry_requests_total", outcome="ok") >= 7
    assert found.of("dray_placement_seconds_count", outcome="written") == 2
    assert found.of("dray_woven_bytes_total") > 4 * MEGABYTE
    assert found.of("dray_build_info") == 1


async def test_progress_is_streamed_by_bytes_and_layers(
    registry: DebianRegistry, site: Site
) -> None:
    image = image_of("1")
    Pusher(registry.url).push(image, "team/app", "1")
    async with Gate(registry.port) as gate:
        gate.hold_after(MEGABYTE)
        pull = await site.pull(f"{gate.host}/team/app:1")
        following = asyncio.create_task(follow(site, pull["id"]))
        view = await site.reached(pull["id"], "PULLING")

        async def moving() -> bool:
            nonlocal view
            view = await site.pull_view(pull["id"])
            progress = view["progress"]
            return bool(progress and 0 < progress["done"] < progress["total"])

        await eventually(moving, within=10)
        total = sum(len(layer.blob) for layer in image.layers)
        assert view["progress"]["total"] == total
        assert {layer["digest"] for layer in view["progress"]["layers"]} == {
            layer.digest for layer in image.layers
        }
        gate.open()
        views = await asyncio.wait_for(following, 30)
    states = [view["state"] for view in views]
    assert states[-1] == "READY"
    order = ["INIT", "PULLING", "CONVERSION", "TRANSFER", "READY"]
    ranks = [order.index(state) for state in states]
    assert ranks == sorted(ranks)


async def follow(site: Site, pull_id: str) -> list[dict[str, Any]]:
    """Everything that a viewer of the pull is told, to its end."""
    async with site.stream(f"/api/v1/pulls/{pull_id}/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        text = await response.text()
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"reference": "UPPER/Case"}, 400, "invalid_reference", "lower case"),
        ({"reference": "../../etc/passwd"}, 400, "invalid_reference", "write it like"),
        ({"reference": "a" * 600}, 400, "invalid_input", "512"),
        ({"reference": "debian", "system": "mars"}, 404, "unknown_system", "cluster"),
        ({"reference": "debian", "system": "../x"}, 400, "invalid_input", "system"),
        ({"reference": "debian", "type": "oven"}, 400, "invalid_input", "docker"),
        ({"reference": "debian", "sistem": "x"}, 400, "invalid_input", "sistem"),
        ({"reference": 7}, 400, "invalid_input", "reference"),
        ({}, 400, "invalid_input", "reference"),
        ([], 400, "invalid_input", "body"),
    ],
)
async def test_bad_input_is_told_what_to_do(
    body: object, status: int, code: str, says: str, site: Site
) -> None:
    got, problem = await site.ask("POST", "/api/v1/pulls", body)
    assert (got, problem["code"]) == (status, code)
    assert says in problem["detail"]
    assert (await site.ask("GET", "/readyz"))[0] == 200


async def test_failures_give_their_reason_and_can_be_tried_again(
    registry: DebianRegistry, site: Site
) -> None:
    reference = f"{registry.host}/team/app:1"
    view = await site.reached((await site.pull(reference))["id"], "READY", "FAILURE")
    assert view["failure"]["code"] == "image_not_found"
    assert "check the name and the tag" in view["failure"]["message"]
    status, problem = await site.ask("GET", f"/api/v1/images/_/docker/{quote(reference, safe='')}")
    assert (status, problem["code"]) == (404, "not_found")
    assert "does not exist" in problem["detail"], "a lookup tells why there is nothing"

    Pusher(registry.url).push(image_of("1"), "team/app", "1")
    view = await site.reached((await site.pull(reference))["id"], "READY", "FAILURE")
    assert view["state"] == "READY"


async def nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<nonsense")
    await writer.drain()
    writer.close()


async def slam(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\0\xff not even HTTP")
    writer.close()


@pytest.mark.parametrize("behaviour", [nonsense, slam])
async def test_a_registry_that_answers_nonsense_fails_the_pull_alone(
    behaviour: Any, site: Site
) -> None:
    port = free_port()
    async with await asyncio.start_server(behaviour, "127.0.0.1", port):
        pull = await site.pull(f"127.0.0.1:{port}/team/app:1")
        view = await site.reached(pull["id"], "FAILURE", within=60)
    assert f"127.0.0.1:{port}" in view["failure"]["message"]
    assert (await site.ask("GET", "/readyz"))[0] == 200
    assert site.leftovers() == []


async def test_sigterm_ends_in_order_and_a_restart_finishes_the_pull(
    registry: DebianRegistry, site: Site
) -> None:
    Pusher(registry.url).push(image_of("1"), "team/app", "1")
    async with Gate(registry.port) as gate:
        gate.hold_after(MEGABYTE)
        pull = (await site.pull(f"{gate.host}/team/app:1"))["id"]
        await site.reached(pull, "PULLING")
        assert await site.stop("up") == 0
        assert site.leftovers() == []
        gate.open()
        await site.up()
        view = await site.reached(pull, "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
