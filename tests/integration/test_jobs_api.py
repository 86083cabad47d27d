"""Jobs and nodes over REST: hostlists, reservations, waiting, and pages of nodes."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.feed import TooManyFollowersError
from services.gateway.jobs import watch as job_watch
from services.gateway.jobs.views import JobViews
from services.gateway.jobs.watch import JobWatch
from shared.catalog.interface import Catalog
from shared.catalog.records import StagingState
from shared.deadline import Deadline
from shared.events import NodeFailed, NodeStaged
from tests.support.catalogs import node_record, opened, put, soon
from tests.support.conditions import eventually
from tests.support.gateways import Running, gateway
from tests.support.job_site import Gateway
from tests.support.transitions import ready

IMAGE = ready().image_id


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Running, Catalog]]:
    settings = {"systems": {"cluster": {"image_dir": tmp_path / "images"}}}
    async with (
        gateway(tmp_path / "gateway", settings) as running,
        opened(f"sqlite:///{tmp_path}/gateway/catalog.db") as catalog,
    ):
        image = ready().but(version=0)
        await catalog.images.change(image.key, put(image), soon())
        yield running, catalog


def wanted(job: str, **more: object) -> dict[str, Any]:
    return {"job_id": job, "images": [IMAGE], **more}


async def test_a_job_is_announced_by_a_hostlist_and_repeated_by_names(
    site: tuple[Running, Catalog],
) -> None:
    running, _ = site
    said = await running.ask_locally("/jobs", "POST", wanted("12+1", nodes="nid[001-003],login1"))
    assert (said.status, said.body["node_count"]) == (202, 4)
    assert said.body["hostlist"] == "login1,nid[001-003]"
    location = said.headers["Location"]
    names = ["login1", "nid003", "nid002", "nid001"]
    again = await running.ask_locally("/jobs", "POST", wanted("12+1", nodes=names))
    assert again.status == 202
    assert again.body["announced_at"] == said.body["announced_at"]
    shown = await running.ask_locally(f"{location.removeprefix('/api/v1')}?nodes=all&wait=20")
    assert [node["node"] for node in shown.body["nodes"]] == sorted(names)
    # There are no agents: all of them have failed, and so have answered.
    assert shown.body["counts"]["FAILED"] == 4
    for nodes, problem in (("n[1-", "character 2"), ("n[1-999999999]", "more than 100000")):
        bad = await running.ask_locally("/jobs", "POST", wanted("13", nodes=nodes))
        assert (bad.status, bad.code) == (400, "invalid_hostlist")
        assert problem in bad.body["detail"]


async def test_a_job_waits_for_nodes_with_its_images_held(site: tuple[Running, Catalog]) -> None:
    running, _ = site
    reserved = await running.ask_locally("/jobs", "POST", wanted("7_1"))
    assert (reserved.status, reserved.body["node_count"]) == (202, 0)
    assert reserved.body["reserved_until"] is not None
    announced = await running.ask_locally("/jobs", "POST", wanted("7_1", nodes="n1"))
    assert announced.body["reserved_until"] is None
    for _ in range(2):
        released = await running.ask_locally("/jobs/7_1", "DELETE")
        assert (released.status, released.body["released_at"] is None) == (202, False)

    async def requeued() -> bool:
        said = await running.ask_locally("/jobs", "POST", wanted("7_1", nodes="n2"))
        assert said.status == 202 or said.code == "job_still_ending"
        return said.status == 202

    await eventually(requeued, within=10)


async def test_nodes_are_listed_by_state_and_hostlist_page_by_page(
    site: tuple[Running, Catalog],
) -> None:
    running, catalog = site
    for number in range(1, 8):
        name = f"n{number}"
        record = node_record(name, node=name, system="cluster", lost=number in {2, 3})
        await catalog.nodes.change(name, put(record), soon())

    async def listed(query: str) -> list[str]:
        found, after = [], ""
        while True:
            said = await running.ask_locally(f"/nodes?limit=2{query}{after}")
            assert said.status == 200, said.body
            assert len(said.body["items"]) <= 2
            found += [node["node"] for node in said.body["items"]]
            if said.body["next"] is None:
                return found
            after = f"&after={said.body['next']}"

    assert await listed("") == [f"n{number}" for number in range(1, 8)]
    assert await listed("&state=lost") == ["n2", "n3"]
    assert await listed("&state=alive") == ["n1", "n4", "n5", "n6", "n7"]
    assert await listed("&nodes=n[2-5],n9") == ["n2", "n3", "n4", "n5"]
    assert await listed("&nodes=n[2-5],n9&state=alive") == ["n4", "n5"]
    bad = await running.ask_locally("/nodes?nodes=n[1-10001]")
    assert (bad.status, bad.body["code"]) == (400, "invalid_hostlist")
    bad = await running.ask_locally("/nodes?nodes=n[5-2]")
    assert (bad.status, bad.code) == (400, "invalid_hostlist")


@pytest.fixture
async def logic(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        image = ready().but(version=0)
        await catalog.images.change(image.key, put(image), soon())
        logic = Gateway(catalog, tmp_path)
        yield logic
        await logic.close()


async def test_who_waits_is_woken_by_the_last_answer_whichever_gateway_hears_it(
    logic: Gateway, tmp_path: Path
) -> None:
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        elsewhere = Gateway(catalog, tmp_path)
        watch = JobWatch(logic.catalog, JobViews(logic.catalog))
        await logic.begun("n1", "n2")
        waiting = [asyncio.create_task(watch.answered("17", Deadline.after(20))) for _ in range(5)]
        await logic.heard_back("n1", NodeStaged)
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done, "one node is pending still"
        began = time.monotonic()
        await elsewhere.heard_back("n2", NodeFailed)
        await asyncio.gather(*waiting)
        assert time.monotonic() - began < 10
        assert await logic.state("n2") is StagingState.FAILED
        await watch.answered("17", Deadline.after(20))
        await elsewhere.close()
        await watch.stop()


async def test_waiting_ends_with_the_job_or_the_time_and_takes_no_more_than_it_may(
    logic: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = JobWatch(logic.catalog, JobViews(logic.catalog))
    await logic.announce()  # a reservation: it waits for nodes
    began = time.monotonic()
    await watch.answered("17", Deadline.after(0.2))
    assert time.monotonic() - began >= 0.2
    waiting = asyncio.create_task(watch.answered("17", Deadline.after(20)))
    await asyncio.sleep(0)
    monkeypatch.setattr(job_watch, "WAITING_AT_ONCE", 1)
    with pytest.raises(TooManyFollowersError, match="wait for jobs already"):
        await watch.answered("17", Deadline.after(20))
    await logic.jobs.release("17")
    await waiting
    waiting = asyncio.create_task(watch.answered("17", Deadline.after(20)))
    await waiting
    await watch.stop()
