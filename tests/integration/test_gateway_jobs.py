"""What the gateway does for jobs when something between it and the nodes has gone wrong."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.gateway.auth.compose import site_secret
from services.gateway.auth.identity import Principal, Scope
from services.gateway.expiring import dismissed
from services.gateway.fan_out import FanOut
from services.gateway.feed import ChangeFeed
from services.gateway.images import Images
from services.gateway.jobs import Jobs
from services.gateway.lifecycle import Lifecycle
from services.gateway.private import private_images
from services.gateway.pulls import Pulls
from services.gateway.transitions import Transitions
from shared.api import JobRequest
from shared.bus.connect import connect_bus
from shared.catalog.interface import Catalog, Change, Step
from shared.catalog.records import JobRecord, StagingRecord, StagingState, staging_key
from shared.catalog.store import sortable
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import ConflictError
from shared.events import JobAllocated, JobReleased, NodeFailed, NodeHeartbeat, NodeStaged
from shared.models import utcnow
from tests.support.catalogs import opened
from tests.support.conditions import eventually
from tests.support.transitions import ready

NODES = ("n1", "n2", "n3")
SLURM = Principal("slurm", frozenset(Scope), "token")


async def _nobody_known(uid: int) -> Principal:
    return Principal(str(uid), frozenset(), "nobody", uid)


class Gateway:
    """The gateway's logic for jobs, over a real catalog, without a bus."""

    def __init__(self, catalog: Catalog, place: Path, *, stage_timeout: float = 60.0) -> None:
        self.catalog = catalog
        self.place = place
        settings = Settings.model_validate(
            {
                "data_dir": place,
                "systems": {"cluster": {"image_dir": "/images"}},
                "catalog": {"timeout": 5.0},
            }
        )
        feed = ChangeFeed(catalog)
        private = private_images(settings, catalog, site_secret(settings))
        pulls = Pulls(
            catalog,
            feed,
            Transitions(settings.pull, settings.systems),
            logins=private.logins,
            adoption=private.adoption,
            lifecycle=Lifecycle(settings, catalog, connect_bus(settings, "test"), feed),
            timeout=5.0,
        )
        self.fan_out = FanOut(catalog, timeout=5.0, stage_timeout=stage_timeout)
        self.jobs = Jobs(
            catalog,
            Images(catalog),
            pulls,
            self.fan_out,
            lambda *_: None,
            users=_nobody_known,
            timeout=5.0,
        )

    async def announce(self, *nodes: str) -> JobRecord:
        image = ready()
        assert image.image_id is not None
        request = JobRequest(job_id="17", images=(image.image_id,), nodes=nodes)
        return await self.jobs.announce(request, SLURM)

    async def stagings(self) -> list[StagingRecord]:
        """Of the latest announcement."""
        job = await self.catalog.jobs.get("17")
        assert job is not None
        where = {"job_id": "17", "announced_at": sortable(job.announced_at)}
        return await self.catalog.stagings.find(where, limit=1000)

    async def told(self, kind: type[JobAllocated | JobReleased]) -> list[str]:
        """Which nodes the outbox has such an event for."""
        pending = await self.catalog.pending(utcnow(), 1000)
        return sorted(one.event.node for one in pending if isinstance(one.event, kind))

    async def quiet(self) -> bool:
        job = await self.catalog.jobs.get("17")
        return job is not None and job.due_at is None

    async def heard_back(self, node: str, kind: type[NodeStaged | NodeFailed]) -> None:
        """The agent's answer to what it was last told."""
        staging = await self.catalog.stagings.get(staging_key("17", node))
        assert staging is not None
        common = {"correlation_id": "17", "causation_id": staging.allocation, "job_id": "17"}
        if kind is NodeStaged:
            event = NodeStaged.model_validate({**common, "node": node, "seconds": 0.1})
            await self.jobs.on_staged(event)
        else:
            failed = {**common, "node": node, "code": "c", "message": "m"}
            await self.jobs.on_failed(NodeFailed.model_validate(failed))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        image = ready().but(version=0)
        await catalog.images.change(image.key, lambda _: Change(image), Deadline.after(5))
        gateway = Gateway(catalog, tmp_path)
        yield gateway
        await gateway.fan_out.stop()


async def test_a_fan_out_that_a_crash_cut_short_is_finished_by_the_sweep(gateway: Gateway) -> None:
    await gateway.announce(*NODES)
    await gateway.fan_out.stop()  # the crash: nobody was told, and the job stays due
    assert await gateway.told(JobAllocated) == []
    overdue = utcnow() - timedelta(seconds=1)

    def make_due(found: JobRecord | None) -> Change[JobRecord] | None:
        return Change(found.but(due_at=overdue)) if found else None

    await gateway.catalog.jobs.change("17", make_due, Deadline.after(5))
    successor = Gateway(gateway.catalog, gateway.place)
    await successor.jobs.overdue(100)
    await eventually(gateway.quiet, within=5)
    assert await gateway.told(JobAllocated) == sorted(NODES)


async def test_a_release_that_overtakes_the_fan_out_leaves_no_node_told(gateway: Gateway) -> None:
    job = await gateway.announce(*NODES)
    await gateway.fan_out.stop()  # on its way in a gateway that is very slow
    await gateway.jobs.release("17")
    await eventually(gateway.quiet, within=5)
    slow = FanOut(gateway.catalog, timeout=5.0, stage_timeout=60.0)
    await slow._run(job)
    assert await gateway.told(JobAllocated) == []
    stagings = await gateway.stagings()
    assert {staging.state for staging in stagings} == {StagingState.FAILED}


async def test_an_id_is_not_announced_again_before_its_nodes_know_of_the_end(
    gateway: Gateway,
) -> None:
    await gateway.announce("n1", "n2")
    await eventually(gateway.quiet, within=5)
    await gateway.jobs.release("17")
    await gateway.fan_out.stop()
    with pytest.raises(ConflictError, match="in a moment"):
        await gateway.announce("n9")
    await eventually(gateway.quiet, within=5)  # being refused has set it going again
    assert await gateway.told(JobReleased) == ["n1", "n2"]
    await gateway.announce("n9")
    await eventually(gateway.quiet, within=5)
    stagings = await gateway.stagings()
    assert [staging.node for staging in stagings] == ["n9"]


async def test_an_answer_to_an_earlier_announcement_decides_nothing(gateway: Gateway) -> None:
    await gateway.announce("n1")
    await eventually(gateway.quiet, within=5)
    earlier = await gateway.catalog.stagings.get(staging_key("17", "n1"))
    assert earlier is not None
    await gateway.jobs.release("17")
    await eventually(gateway.quiet, within=5)
    await gateway.announce("n1")
    await eventually(gateway.quiet, within=5)
    late = NodeStaged(
        correlation_id="17", causation_id=earlier.allocation, node="n1", job_id="17", seconds=1
    )
    await gateway.jobs.on_staged(late)
    (staging,) = await gateway.stagings()
    assert staging.state is StagingState.PENDING
    await gateway.heard_back("n1", NodeFailed)
    await gateway.heard_back("n1", NodeStaged)
    await gateway.heard_back("n1", NodeFailed)
    (staging,) = await gateway.stagings()
    assert staging.state is StagingState.STAGED, "late good news counts, late bad news does not"


async def test_a_node_that_never_answers_is_given_up_with_a_reason(gateway: Gateway) -> None:
    hasty = Gateway(gateway.catalog, gateway.place, stage_timeout=-1000.0)
    await hasty.announce("n1", "n2")
    await eventually(gateway.quiet, within=5)
    await gateway.heard_back("n2", NodeStaged)
    assert await gateway.jobs.unanswered(100) == 1
    stagings = await gateway.stagings()
    states = {staging.node: staging for staging in stagings}
    assert states["n2"].state is StagingState.STAGED
    assert states["n1"].failure is not None
    assert states["n1"].failure.code == "no_answer"


@pytest.mark.parametrize("ended", [True, False])
async def test_a_node_that_missed_the_end_of_a_job_is_told_again(
    ended: bool, gateway: Gateway
) -> None:
    await gateway.announce("n1")
    await eventually(gateway.quiet, within=5)
    if ended:
        await gateway.jobs.release("17")
        await eventually(gateway.quiet, within=5)
    for pending in await gateway.catalog.pending(utcnow(), 100):
        await gateway.catalog.settle(pending)  # published, and lost with the agent's queue
    heartbeat = NodeHeartbeat(
        correlation_id="n1",
        node="n1",
        system="cluster",
        kernel="6.1",
        mounter="loop",
        codecs=("zstd",),
        mounts=1,
        jobs=("17", "unknown"),
    )
    await gateway.jobs.on_heartbeat(heartbeat)
    assert await gateway.told(JobReleased) == (["n1"] if ended else [])


async def test_a_job_whose_image_expires_while_it_is_announced_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removes the image looks for jobs after it expired, and saw none yet."""
    jobs = gateway.catalog.jobs
    store = jobs.change

    async def expires(key: str, step: Step[JobRecord], deadline: Deadline) -> JobRecord | None:
        monkeypatch.undo()
        await gateway.catalog.images.change(
            ready().key, lambda found: dismissed(found, utcnow()), Deadline.after(5)
        )
        return await store(key, step, deadline)

    monkeypatch.setattr(jobs, "change", expires)
    with pytest.raises(ConflictError, match="has expired at this very moment; pull it"):
        await gateway.announce("n1")
    job = await jobs.get("17")
    assert job is not None
    assert job.released_at is not None
    await gateway.jobs.overdue(100)
    assert await gateway.told(JobAllocated) == []
