"""The time line of a job over a real catalog: what happened when, however many nodes it has."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from services.gateway.jobs import timelines
from services.gateway.jobs.answers import JobAnswers
from services.gateway.jobs.first_ranks import FirstRanks
from services.gateway.jobs.timelines import MOST_POINTS, JobTimelines, TooManyTimelinesError
from services.gateway.jobs.views import JobViews
from shared.api import JobTimeline
from shared.catalog.interface import Catalog
from shared.catalog.records import (
    Failure,
    JobRecord,
    StagingRecord,
    StagingState,
    staging_key,
)
from shared.events import JobEntered, NodeFailed, NodeHeartbeat, NodeStaged
from tests.support.bulk import store_many
from tests.support.busy import never_busy_for_long
from tests.support.catalogs import opened, put, soon
from tests.support.conditions import eventually
from tests.support.gateways import gateway as gateway_over_rest
from tests.support.job_site import Gateway
from tests.support.metrics import moved
from tests.support.transitions import NOW, later, ready

JOB = JobRecord(
    key="1",
    version=1,
    job_id="1",
    system="alps",
    requested=(),
    images=(),
    nodes="n[00000-09999]",
    node_count=10_000,
    announced_by="slurm",
    announced_at=NOW,
)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        image = ready().but(version=0)
        await catalog.images.change(image.key, put(image), soon())
        gateway = Gateway(catalog, tmp_path)
        yield gateway
        await gateway.close()


def moments(timeline: JobTimeline) -> dict[str, datetime]:
    return {mark.moment: mark.at for mark in timeline.marks}


async def job(gateway: Gateway) -> JobRecord:
    found = await gateway.catalog.jobs.get("17")
    assert found is not None
    return found


def node(number: int, **fields: object) -> StagingRecord:
    name = f"n{number:05}"
    given = {
        "key": staging_key("1", name),
        "version": 1,
        "job_id": "1",
        "node": name,
        "announced_at": NOW,
        "state": StagingState.STAGED,
        "answered_at": later(number / 100),
        "seconds": number / 1000,
        **fields,
    }
    return StagingRecord.model_validate(given)


async def test_ten_thousand_nodes_are_some_numbers_and_hold_nobody_up(
    catalog: Catalog, catalog_url: str
) -> None:
    gone = {"state": StagingState.RELEASED, "released": True}
    # What is lost later was there; what failed, or is of another announcement, never was.
    others = [
        node(0, state=StagingState.LOST, before_lost=StagingState.STAGED),
        node(9_998, state=StagingState.FAILED, failure=Failure(code="x", message="")),
        node(9_999, announced_at=later(-60), answered_at=later(-59)),
    ]
    nodes = [node(number, **gone) for number in range(1, 9_998)]
    await asyncio.to_thread(store_many, catalog_url, [*nodes, *others])
    ended = JOB.but(
        reserved_at=later(-10), first_rank_at=later(120), released_at=later(200), told=True
    )
    known = JobTimelines(catalog)
    async with never_busy_for_long():
        timeline, same = await asyncio.gather(known.of(ended), known.of(ended))
    assert timeline == same
    assert [(mark.moment, (mark.at - NOW).total_seconds()) for mark in timeline.marks] == [
        ("reserved", -10),
        ("announced", 0),
        ("first_node", 0),
        ("half_of_nodes", 49.99),
        ("most_nodes", 98.99),
        ("first_rank", 120),
        ("released", 200),
    ]
    assert len(timeline.arrived) == MOST_POINTS
    assert timeline.arrived[0] == 1
    assert timeline.arrived[-1] == 9_998
    assert list(timeline.arrived) == sorted(timeline.arrived)
    assert timeline.step_seconds * (MOST_POINTS - 1) == pytest.approx(99.97)
    half = timeline.arrived[MOST_POINTS // 2] / 9_998
    assert half == pytest.approx(0.5, abs=0.02)
    assert timeline.staging is not None
    assert timeline.staging.p50 == pytest.approx(4.998, abs=0.002)
    assert (timeline.staging.p99, timeline.staging.most) == (9.898, 9.997)
    assert len(timeline.model_dump_json()) < 2000
    # It has ended: nothing is read again.
    await catalog.stagings.change("1/n00001", put(node(1, version=1, seconds=9999.0)), soon())
    assert await known.of(ended) == timeline


async def test_while_it_runs_a_time_line_is_read_again_after_a_moment(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = JOB.but(nodes="n[00000-00001]", node_count=2)
    known = JobTimelines(catalog)
    empty = await known.of(runs)
    assert list(moments(empty)) == ["announced"]
    assert set(empty.arrived) == {0}  # up to now
    assert empty.staging is None
    for number in range(2):
        await catalog.stagings.change(f"1/n{number:05}", put(node(number, version=0)), soon())
    assert await known.of(runs) == empty
    # The job's own part is always as its record has it.
    entered = moments(await known.of(runs.but(first_rank_at=later(5))))
    assert list(entered) == ["announced", "first_rank"]
    monkeypatch.setattr(timelines, "KEPT_SECONDS", 0.0)
    timeline = await known.of(runs)
    assert moments(timeline)["all_nodes"] == later(0.01)
    assert timeline.arrived[-1] == 2
    waits = await known.of(runs.but(nodes="", node_count=0))
    assert (list(moments(waits)), waits.arrived) == (["reserved"], ())


async def test_readings_that_nobody_waits_for_do_not_pile_up(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timelines, "MOST_READING", 3)
    monkeypatch.setattr(timelines, "MOST_KEPT", 1)
    known = JobTimelines(catalog)
    jobs = [JOB.but(key=name, job_id=name, nodes="n1", node_count=1) for name in "abcd"]
    asking = [asyncio.create_task(known.of(job)) for job in jobs[:3]]
    await asyncio.sleep(0)
    with pytest.raises(TooManyTimelinesError):
        await known.of(jobs[3])
    assert asking[2].done() is False
    asking[0].cancel()
    assert [each.job_id for each in await asyncio.gather(*asking[1:])] == ["b", "c"]
    assert (await known.of(jobs[3])).job_id == "d"
    again = asyncio.create_task(known.of(jobs[0]))
    await asyncio.sleep(0)
    await known.stop()
    with pytest.raises(asyncio.CancelledError):
        await again
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("timeline")]


async def test_the_time_line_of_a_real_job(gateway: Gateway) -> None:
    for name in ("n1", "n2"):
        await gateway.beat(name, start="1")
    await gateway.announce()
    began = await job(gateway)
    announced = await gateway.begun("n1", "n2")
    assert announced.reserved_at == began.announced_at

    async def all_answered() -> bool:
        return (await job(gateway)).answered_at is not None

    answers = JobAnswers(gateway.catalog, JobViews(gateway.catalog), 5.0)
    with (
        moved("dray_job_ready_seconds_count"),
        moved("dray_node_staging_seconds_count", {"how": "STAGED"}),
        moved("dray_node_stagings_total", {"outcome": "staged"}),
        moved("dray_node_stagings_total", {"outcome": "c"}),
    ):
        await gateway.heard_back("n1", NodeStaged)
        await gateway.heard_back("n1", NodeStaged)  # doubled: counted once
        await gateway.heard_back("n2", NodeFailed)
        await eventually(all_answered, within=10)
    await answers.stop()
    assert (await gateway.staging("n1")).answered_at is not None

    async def heard(from_node: str, seconds: float) -> datetime | None:
        entered = JobEntered(job_id="17", seconds_ago=seconds)
        await gateway.nodes.on_heartbeat(heartbeat(from_node, entered))
        return (await job(gateway)).first_rank_at

    # Of a job that had this id before; then the first, and one that is later than that.
    assert await heard("n1", 100.0) is None
    first = await heard("n1", 0.0)
    assert first is not None
    assert await heard("n2", 0.0) == first
    await gateway.jobs.release("17")
    timeline = await JobTimelines(gateway.catalog).of(await job(gateway))
    assert [mark.moment for mark in timeline.marks] == [
        "reserved",
        "announced",
        "first_node",
        "half_of_nodes",
        "first_rank",
        "released",
    ]


def heartbeat(from_node: str, *entered: JobEntered) -> NodeHeartbeat:
    return NodeHeartbeat(
        correlation_id=from_node,
        node=from_node,
        system="cluster",
        kernel="6.1",
        mounter="loop",
        codecs=("zstd",),
        mounts=1,
        entered=entered,
        start_id="1",
    )


async def test_the_earliest_rank_counts_whoever_hears_of_it_last(gateway: Gateway) -> None:
    await gateway.begun("n1")
    await gateway.change_job(announced_at=(await job(gateway)).announced_at - timedelta(minutes=1))
    other = Gateway(gateway.catalog, gateway.place)
    for number, where in enumerate((gateway, other, gateway)):
        entered = JobEntered(job_id="17", seconds_ago=10.0 + number)
        await where.nodes.on_heartbeat(heartbeat(f"n{number}", entered))
    await other.close()
    found = await job(gateway)
    assert found.first_rank_at is not None
    assert timedelta(seconds=47) < found.first_rank_at - found.announced_at < timedelta(seconds=49)


async def test_a_thousand_nodes_that_tell_at_once_make_a_handful_of_writes(
    gateway: Gateway,
) -> None:
    before = await gateway.begun("n1")
    ranks = FirstRanks(gateway.catalog, 5.0)
    # In no order, as heartbeats come; the earliest in the middle.
    ages = [(number * 617) % 1000 / 1000 for number in range(1000)]
    told = (
        heartbeat(f"n{number}", JobEntered(job_id="17", seconds_ago=age))
        for number, age in enumerate(ages)
    )
    async with asyncio.TaskGroup() as group:
        for event in told:
            group.create_task(ranks.heard(event))
    await ranks.stop()
    after = await job(gateway)
    assert after.first_rank_at is not None
    assert 0 < after.version - before.version < 30


async def test_a_time_line_over_rest_is_its_user_s_and_the_operators(tmp_path: Path) -> None:
    async with (
        gateway_over_rest(tmp_path / "gateway") as running,
        opened(f"sqlite:///{tmp_path}/gateway/catalog.db") as catalog,
    ):
        mine = JOB.but(nodes="n00000", node_count=1, uid=os.getuid(), version=0)
        await catalog.jobs.change("1", put(mine), soon())
        await catalog.stagings.change("1/n00000", put(node(0, version=0)), soon())
        said = await running.ask_locally("/jobs/1/timeline")
        assert said.status == 200, said.body
        assert [mark["moment"] for mark in said.body["marks"]] == [
            *("announced", "first_node", "half_of_nodes", "most_nodes", "all_nodes"),
        ]
        assert said.body["arrived"] == [1]
        assert (await running.ask_locally("/jobs/2/timeline")).status == 404
        assert (await running.ask("/jobs/1/timeline")).status == 404, "nobody may know of it"
