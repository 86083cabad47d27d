"""One trace from the REST call to the mount on a node, across the bus and all four services."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.collector import Collector, Received, collecting
from tests.support.conditions import eventually
from tests.support.images import File, Pusher, build_image, layer_of
from tests.support.registry import DebianRegistry
from tests.support.site import Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts by loop device: needs root"),
]
TRACE = "5" * 32
CLIENT = "6" * 16
HEADERS = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[str]:
    image = build_image([layer_of({"etc/motd": File(b"traced\n")})])
    with DebianRegistry(tmp_path / "registry") as registry:
        Pusher(registry.url).push(image, "team/app", "1")
        yield f"{registry.host}/team/app:1"


async def test_one_trace_leads_from_the_request_to_the_mount(
    tmp_path: Path, broker_url: str, reference: str, collector: Collector
) -> None:
    settings = {"bus": {"url": broker_url}, "tracing": {"endpoint": collector.endpoint}}
    async with Site(tmp_path / "site", settings) as site:
        await site.start("gateway", "converter", "distributor", "agent")
        await eventually(lambda: has_nodes(site), within=20)
        body = {"reference": reference}
        status, pull = await site.ask("POST", "/api/v1/pulls", body, headers=HEADERS)
        assert status == 202, pull
        await site.reached(pull["id"], "READY")
        job = {"job_id": "17", "images": [reference], "nodes": ["node1"]}
        status, _ = await site.ask("POST", "/api/v1/jobs", job, headers=HEADERS)
        assert status == 202
        await eventually(lambda: said(collector, "gateway", "node.staged"), within=30)
        await eventually(lambda: said(collector, "agent", "mount"), within=30)
        # Each hangs on one that was sent as well, up to the client's own.
        await eventually(lambda: orphans(collector) == [], within=30)

    ours = [span for span in collector.spans if span.trace == TRACE]
    assert collector.spans == ours, "what nobody asked for is not traced"
    assert {(span.service, span.name) for span in ours} >= {
        ("gateway", "POST /api/v1/pulls"),
        ("converter", "pull.requested"),
        ("converter", "read manifest"),
        ("converter", "layer"),
        ("converter", "plan image"),
        ("gateway", "image.converted"),
        ("distributor", "placement.requested"),
        ("distributor", "weave"),
        ("gateway", "image.placed"),
        ("gateway", "POST /api/v1/jobs"),
        ("agent", "job.allocated"),
        ("agent", "mount"),
        ("gateway", "node.staged"),
    }
    assert "pull.progressed" not in {span.name for span in ours}
    # What is private to users is not told to whoever keeps traces.
    assert not [span for span in ours if "team/app" in repr(span)]


async def has_nodes(site: Site) -> bool:
    _, view = await site.ask("GET", "/api/v1/nodes")
    return bool(view["items"])


def said(collector: Collector, service: str, name: str) -> bool:
    return any((span.service, span.name) == (service, name) for span in collector.spans)


def orphans(collector: Collector) -> list[Received]:
    known = {span.id for span in collector.spans} | {CLIENT}
    return [span for span in collector.spans if span.parent not in known]
