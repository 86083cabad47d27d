"""Nodes that come late, are lost, come back or never: what they and their jobs are told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.gateway.jobs.stagings import Stagings
from shared.api import JobRequest
from shared.catalog.interface import Catalog
from shared.catalog.records import StagingState
from shared.events import JobAllocated, NodeFailed, NodeStaged
from shared.models import utcnow
from tests.support.catalogs import put, soon
from tests.support.conditions import eventually
from tests.support.job_site import SLURM, Gateway
from tests.support.transitions import ready


@pytest.fixture
async def gateway(catalog: Catalog, tmp_path: Path) -> AsyncIterator[Gateway]:
    image = ready().but(version=0)
    await catalog.images.change(image.key, put(image), soon())
    gateway = Gateway(catalog, tmp_path)
    yield gateway
    await gateway.close()


async def nobody_takes_it(gateway: Gateway) -> None:
    """Each node's queue is missing."""
    for pending in await gateway.catalog.pending(utcnow(), 1000):
        assert await gateway.stagings.no_agent(pending.event)
    await gateway.published()


async def test_a_node_that_boots_late_is_told_of_its_jobs(gateway: Gateway) -> None:
    await gateway.begun("n1", "n2")
    await nobody_takes_it(gateway)
    failed = await gateway.staging("n1")
    assert failed.failure is not None
    assert (failed.state, failed.failure.code) == (StagingState.FAILED, "no_agent")
    await gateway.beat("n1")
    assert await gateway.told(JobAllocated) == ["n1"]
    assert await gateway.state("n1") is StagingState.PENDING
    await gateway.published()
    await gateway.beat("n1")
    assert await gateway.told(JobAllocated) == [], "once"
    await gateway.heard_back("n1", NodeStaged)
    assert await gateway.state("n1") is StagingState.STAGED
    assert await gateway.state("n2") is StagingState.FAILED


async def test_a_node_that_was_away_is_told_although_its_agent_is_the_same(
    gateway: Gateway,
) -> None:
    await gateway.beat("n1")
    await gateway.begun("n1")
    await nobody_takes_it(gateway)
    await gateway.beat("n1")
    assert await gateway.told(JobAllocated) == ["n1"]


async def test_an_agent_that_starts_again_is_told_what_it_has_not(gateway: Gateway) -> None:
    await gateway.beat("n1")
    await gateway.begun("n1")
    await gateway.published()
    await gateway.heard_back("n1", NodeStaged)
    await gateway.beat("n1", "17", start="second")
    assert await gateway.told(JobAllocated) == [], "it has adopted the mounts"
    await gateway.beat("n1", start="third")  # the node was booted
    assert await gateway.told(JobAllocated) == ["n1"]
    assert await gateway.state("n1") is StagingState.PENDING
    await gateway.published()
    await gateway.heard_back("n1", NodeFailed)
    await gateway.beat("n1", start="third")
    assert await gateway.told(JobAllocated) == [], "it has tried, and said so"
    await gateway.beat("n1", start="fourth")
    assert await gateway.told(JobAllocated) == ["n1"]


async def test_a_node_that_is_not_heard_is_lost_and_comes_back_by_itself(
    gateway: Gateway,
) -> None:
    for node in ("n1", "n2", "n3"):
        await gateway.beat(node)
    await gateway.begun("n1", "n2", "n3")
    await gateway.published()
    await gateway.heard_back("n1", NodeStaged)
    await gateway.heard_back("n3", NodeFailed)
    for node in ("n1", "n2", "n3"):
        await gateway.silence(node)
    lost = {node.node for node in await gateway.nodes.page(["cluster"], None, 10, lost=True)}
    assert lost == {"n1", "n2", "n3"}
    states = {staging.node: staging.state for staging in await gateway.all_stagings()}
    assert states == {
        "n1": StagingState.LOST,
        "n2": StagingState.LOST,
        "n3": StagingState.FAILED,
    }
    await gateway.beat("n1", "17")  # the network was away: its mounts were not
    assert await gateway.state("n1") is StagingState.STAGED
    await gateway.beat("n2")
    assert await gateway.state("n2") is StagingState.PENDING
    assert await gateway.told(JobAllocated) == ["n2"]
    alive = {node.node for node in await gateway.nodes.page(["cluster"], None, 10, lost=False)}
    assert alive == {"n1", "n2"}
    named = await gateway.nodes.named(["cluster"], ["n1", "n3", "n9"])
    assert [(node.node, node.lost) for node in named] == [("n1", False), ("n3", True)]


async def test_a_lost_nodes_job_ends_like_any_other(gateway: Gateway) -> None:
    await gateway.beat("n1")
    await gateway.begun("n1")
    await gateway.silence("n1")
    await gateway.jobs.release("17")
    await eventually(gateway.quiet, within=5)
    assert await gateway.state("n1") is StagingState.RELEASED
    await gateway.published()
    await gateway.beat("n1")
    assert await gateway.told(JobAllocated) == []


async def test_a_word_that_comes_from_a_lost_node_counts(gateway: Gateway) -> None:
    await gateway.beat("n1")
    await gateway.begun("n1")
    await gateway.silence("n1")
    await gateway.heard_back("n1", NodeStaged)
    assert await gateway.state("n1") is StagingState.STAGED


async def test_a_node_that_is_gone_for_very_long_is_forgotten(gateway: Gateway) -> None:
    await gateway.beat("n1")
    await gateway.silence("n1", seconds=3600)
    assert await gateway.catalog.nodes.get("n1") is not None
    await gateway.silence("n1", seconds=31 * 86400)
    assert await gateway.catalog.nodes.get("n1") is None


async def test_a_crash_before_a_node_was_told_again_is_made_up_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.begun("n1")
    await nobody_takes_it(gateway)

    async def crash(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(gateway.nodes, "_tell_again", crash)
    with pytest.raises(ConnectionError):
        await gateway.beat("n1")
    monkeypatch.undo()
    successor = Gateway(gateway.catalog, gateway.place)
    await successor.beat("n1")
    await successor.close()
    assert await gateway.told(JobAllocated) == ["n1"]


async def test_doubled_and_mixed_answers_of_many_nodes_come_to_the_same(gateway: Gateway) -> None:
    """Two gateways take the answers of one job, each of them twice, while one node is lost."""
    nodes = tuple(f"n{number}" for number in range(250))
    image = ready().image_id
    assert image is not None
    request = JobRequest(job_id="17", images=(image,), nodes="n[0-249]")
    await gateway.jobs.announce(request, SLURM)
    await eventually(gateway.quiet, within=20)
    other = Stagings(gateway.catalog, 5.0)
    stagings = {staging.node: staging for staging in await gateway.all_stagings()}
    assert sorted(stagings) == sorted(nodes)

    def answer(node: str) -> NodeStaged:
        return NodeStaged(
            correlation_id="17",
            causation_id=stagings[node].allocation,
            node=node,
            job_id="17",
            seconds=1,
            in_place=node.endswith("7"),
        )

    answers = [answer(node) for node in nodes]
    await asyncio.gather(
        *(gateway.stagings.on_staged(each) for each in answers),
        *(other.on_staged(each) for each in reversed(answers)),
    )
    states = [staging.state for staging in await gateway.all_stagings()]
    assert states.count(StagingState.IN_PLACE) == 25
    assert states.count(StagingState.STAGED) == 225
    assert {staging.version for staging in await gateway.all_stagings()} == {2}
    await other.stop()


async def test_an_agent_that_starts_anew_is_told_of_a_job_that_was_just_announced_again(
    gateway: Gateway,
) -> None:
    """What heartbeats know of jobs is some seconds old: of the last job with this id."""
    await gateway.begun("n1")
    await gateway.beat("n1", "17")
    await gateway.jobs.release("17")
    await eventually(gateway.quiet, within=5)
    again = await gateway.begun("n1")
    await gateway.published()  # and lost with the agent
    await gateway.beat("n1", start="second")
    assert await gateway.told(JobAllocated) == ["n1"]
    assert (await gateway.staging("n1")).announced_at == again.announced_at
