"""Usage, jobs and metrics as a real gateway serves them."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.catalog.interface import Change
from shared.catalog.records import ImageRecord
from shared.models import utcnow
from tests.support.catalogs import opened, soon
from tests.support.conditions import eventually
from tests.support.gateways import Running, gateway
from tests.support.transitions import ready

REFERENCE = "docker.io/library/debian:12"
IMAGE = f"/images/local/docker/{REFERENCE}"


def placed() -> ImageRecord:
    """A public image on the system of a gateway without settings."""
    key = f"local/docker/{REFERENCE}"
    return ready().but(key=key, system="local", due_at=None, version=0)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    (tmp_path / "data").mkdir()
    async with opened(f"sqlite://{tmp_path}/data/catalog.db") as catalog:
        image = placed()
        await catalog.images.change(image.key, lambda _: Change(image), soon())
    async with gateway(tmp_path / "data") as started:
        yield started


async def usage(running: Running, query: str = "") -> list[dict[str, Any]]:
    said = await running.ask_locally(f"/usage{query}")
    assert said.status == 200, said.body
    items: list[dict[str, Any]] = said.body["items"]
    return items


async def metric(running: Running, name: str) -> float:
    async with running.network.get(f"{running.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def test_lookups_become_usage(running: Running) -> None:
    before = await metric(running, "dray_lookups_total ")
    for _ in range(3):
        assert (await running.ask_locally(IMAGE)).status == 200
    assert (await running.ask(IMAGE)).status == 200
    assert (await running.ask("/images/local/docker/docker.io/library/absent:1")).status == 404

    async def counted() -> bool:
        return bool(sum(item["lookups"] for item in await usage(running)) == 4)

    await eventually(counted, within=30)
    [line] = await usage(running)
    assert (line["reference"], line["image_id"]) == (REFERENCE, placed().image_id)
    by_user = await usage(running, "?by=user")
    assert [item["lookups"] for item in by_user] == [3, 1]
    assert [item["user"] for item in by_user][1] == "anonymous"
    hours = await usage(running, "?by=hour")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d", hours[0]["period"])
    assert sum(item["lookups"] for item in await usage(running, "?by=day")) == 4
    assert await usage(running, "?reference=debian:12") == [line]
    assert await usage(running, "?reference=debian:11") == []
    assert await metric(running, "dray_lookups_total ") - before == 4


async def test_pages_of_usage_go_on_where_they_ended(running: Running) -> None:
    assert (await running.ask_locally(IMAGE)).status == 200
    assert (await running.ask(IMAGE)).status == 200

    async def counted() -> bool:
        return len(await usage(running, "?by=user")) == 2

    await eventually(counted, within=30)
    first = (await running.ask_locally("/usage?by=user&limit=1")).body
    second = (await running.ask_locally(f"/usage?by=user&limit=1&after={first['next']}")).body
    assert second["next"] is None
    assert (second["since"], second["until"]) == (first["since"], first["until"])
    assert {page["items"][0]["user"] for page in (first, second)} == {
        item["user"] for item in await usage(running, "?by=user")
    }


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?since=never", "invalid_input"),
        ("?since=0001-01-01T00:00:00Z", "invalid_input"),
        ("?until=9999-12-31T23:59:59Z", "invalid_input"),
        ("?since=2026-01-02&until=2026-01-01", "invalid_input"),
        ("?since=2001-01-01&until=2026-01-01", "invalid_input"),
        ("?by=moon", "invalid_input"),
        ("?limit=0", "invalid_input"),
        ("?after=abc", "invalid_cursor"),
        ("?reference=://", "invalid_reference"),
        ("?system=nowhere", "unknown_system"),
        ("?user=", "invalid_input"),
    ],
)
async def test_what_cannot_be_asked_is_told_so(running: Running, query: str, code: str) -> None:
    said = await running.ask_locally(f"/usage{query}")
    assert said.code == code, said.body
    assert said.status in {400, 404}


async def test_the_public_sees_totals_and_no_names(running: Running) -> None:
    assert (await running.ask("/usage")).status == 200
    for query in ("?by=user", "?user=root"):
        assert (await running.ask(f"/usage{query}")).status == 401
    assert (await running.ask("/jobs")).status == 401
    assert (await running.ask("/jobs/17")).status == 404


async def test_jobs_are_announced_listed_and_counted(running: Running) -> None:
    nodes = [f"n{number}" for number in range(5)]
    for job in ("17", "18"):
        body = {"job_id": job, "images": [REFERENCE], "nodes": nodes}
        said = await running.ask_locally("/jobs", "POST", body)
        assert said.status == 202, said.body
        assert said.body["node_count"] == 5
    # Announced once more, and counted no more than once.
    assert (await running.ask_locally("/jobs", "POST", body)).status == 202

    async def failed() -> bool:
        view = (await running.ask_locally("/jobs/17")).body
        return bool(view["counts"]["FAILED"] == 5)  # there is no agent

    await eventually(failed, within=30)
    page = (await running.ask_locally("/jobs?limit=1")).body
    assert [item["job_id"] for item in page["items"]] == ["18"]
    page = (await running.ask_locally(f"/jobs?limit=1&after={page['next']}")).body
    assert [item["job_id"] for item in page["items"]] == ["17"]
    assert "nodes" not in page["items"][0]

    view = (await running.ask_locally("/jobs/17?nodes=all&limit=3")).body
    assert [node["node"] for node in view["nodes"]] == nodes[:3]
    more = f"/jobs/17?nodes=all&limit=3&after={view['next']}"
    assert [node["node"] for node in (await running.ask_locally(more)).body["nodes"]] == nodes[3:]
    other = await running.ask_locally(f"/jobs/18?nodes=all&after={view['next']}")
    assert other.code == "invalid_cursor", "it belongs to another job"

    assert (await running.ask_locally("/jobs/17", "DELETE")).status == 202
    left = (await running.ask_locally("/jobs?running=true")).body["items"]
    assert [item["job_id"] for item in left] == ["18"]

    async def counted() -> bool:
        return [item["jobs"] for item in await usage(running)] == [2]

    await eventually(counted, within=30)


async def test_usage_is_stored_when_the_gateway_stops(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    url = f"sqlite://{tmp_path}/data/catalog.db"
    async with opened(url) as catalog:
        image = placed()
        await catalog.images.change(image.key, lambda _: Change(image), soon())
    async with gateway(tmp_path / "data") as running:
        assert (await running.ask(IMAGE)).status == 200
    async with opened(url) as catalog:
        [record] = await catalog.usage.find({}, limit=10)
        assert record.lookups == 1
        assert utcnow() - record.last < timedelta(minutes=5)


async def test_requests_are_measured_by_route_and_never_by_path(running: Running) -> None:
    route = 'route="/api/v1/images/{system}/{type}/{reference}"'
    assert (await running.ask(IMAGE)).status == 200
    assert (await running.ask_locally("/no/such/path/secret")).status == 404
    assert (await running.ask("/whoami", authorization="Bearer rubbish")).status == 401
    async with running.network.get(f"{running.url}/metrics") as answer:
        text = await answer.text()
    assert f'dray_http_request_seconds_count{{method="GET",{route},status="200",via="nobody"}}' in (
        text
    )
    assert 'route="unknown",status="404",via="socket"' in text
    assert re.search(r'dray_not_let_in_total\{code="token_invalid"\} [1-9]', text)
    assert 'dray_catalog_call_seconds_count{outcome="done"}' in text
    assert "secret" not in text
    assert "debian" not in text
