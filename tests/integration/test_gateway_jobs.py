"""What the gateway does for jobs when something between it and the nodes has gone wrong."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.gateway.expiring import dismissed
from services.gateway.jobs.fan_out import FanOut
from shared.catalog.interface import Change, Step
from shared.catalog.records import (
    JobRecord,
    StagingState,
    staging_key,
)
from shared.deadline import Deadline
from shared.errors import ConflictError
from shared.events import JobAllocated, JobReleased, NodeFailed, NodeStaged
from shared.models import utcnow
from tests.support.catalogs import opened, put
from tests.support.conditions import eventually
from tests.support.job_site import Gateway
from tests.support.transitions import ready

NODES = ("n1", "n2", "n3")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with opened(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        image = ready().but(version=0)
        await catalog.images.change(image.key, lambda _: Change(image), Deadline.after(5))
        gateway = Gateway(catalog, tmp_path)
        yield gateway
        await gateway.close()


async def test_a_fan_out_that_a_crash_cut_short_is_finished_by_the_sweep(gateway: Gateway) -> None:
    await gateway.announce(*NODES)
    await gateway.fan_out.stop()  # the crash: nobody was told, and the job stays due
    assert await gateway.told(JobAllocated) == []
    overdue = utcnow() - timedelta(seconds=1)

    await gateway.change_job(due_at=overdue)
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
    stagings = await gateway.all_stagings()
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
    stagings = await gateway.all_stagings()
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
    await gateway.stagings.on_staged(late)
    (staging,) = await gateway.all_stagings()
    assert staging.state is StagingState.PENDING
    await gateway.heard_back("n1", NodeFailed)
    await gateway.heard_back("n1", NodeStaged)
    await gateway.heard_back("n1", NodeFailed)
    (staging,) = await gateway.all_stagings()
    assert staging.state is StagingState.STAGED, "late good news counts, late bad news does not"


async def test_a_node_that_never_answers_is_given_up_with_a_reason(gateway: Gateway) -> None:
    hasty = Gateway(gateway.catalog, gateway.place, stage_timeout=-1000.0)
    await hasty.announce("n1", "n2")
    await eventually(gateway.quiet, within=5)
    await gateway.heard_back("n2", NodeStaged)
    assert await gateway.stagings.overdue(100) == 1
    stagings = await gateway.all_stagings()
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
    await gateway.published()  # and lost with the agent's queue
    await gateway.beat("n1", "17", "unknown")
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


async def test_a_reservation_holds_what_its_job_needs_until_it_runs(gateway: Gateway) -> None:
    """Even if its image expires meanwhile: who removes the file asks which jobs hold it."""
    reference, image = ready().reference, ready().image_id
    assert image is not None
    reserved = await gateway.announce(images=(reference,))
    assert reserved.reservation
    assert await gateway.held.images("cluster") == {image}
    again = await gateway.announce(images=(reference,))
    assert again.announced_at == reserved.announced_at
    assert again.reserved_until is not None
    assert reserved.reserved_until is not None
    assert again.reserved_until > reserved.reserved_until, "somebody still cares"
    await gateway.catalog.images.change(
        ready().key, lambda found: dismissed(found, utcnow()), Deadline.after(5)
    )
    assert await gateway.held.images("cluster") == {image}
    # By the names of the reservation, or as the submission has pinned them.
    job = await gateway.announce("n1", "n2", images=(image,))
    assert [each.image_id for each in job.images] == [image]
    assert (job.nodes, job.reserved_until) == ("n[1-2]", None)
    await eventually(gateway.quiet, within=5)
    assert await gateway.told(JobAllocated) == ["n1", "n2"]
    # A burst buffer that starts anew says so once more, and takes no nodes away.
    late = await gateway.announce(images=(reference,))
    assert (late.nodes, late.announced_at) == (job.nodes, job.announced_at)
    assert gateway.noted == [reference], "used once, however often it is said"
    await gateway.jobs.release("17")
    assert await gateway.held.images("cluster") == set()
    await eventually(gateway.quiet, within=5)
    assert await gateway.told(JobReleased) == ["n1", "n2"]


async def test_a_reservation_that_nobody_follows_ends_by_itself(gateway: Gateway) -> None:
    await gateway.announce()
    await gateway.jobs.overdue(100)
    assert await gateway.held.images("cluster"), "not before its time"
    past = utcnow() - timedelta(seconds=1)
    await gateway.change_job(due_at=past, reserved_until=past)
    await gateway.jobs.overdue(100)
    assert await gateway.held.images("cluster") == set()
    job = await gateway.catalog.jobs.get("17")
    assert job is not None
    assert (job.released_at is not None, job.told) == (True, True)
    # If its job comes after all, it is a job like any other.
    assert (await gateway.begun("n1")).node_count == 1


async def test_a_reservation_is_released_at_once_and_as_often_as_one_likes(
    gateway: Gateway,
) -> None:
    await gateway.announce()
    first = await gateway.jobs.release("17")
    assert first.told
    assert (await gateway.jobs.release("17")).released_at == first.released_at
    assert await gateway.told(JobReleased) == []


async def test_another_reservation_takes_the_place_of_the_first(gateway: Gateway) -> None:
    other = ready().but(
        key="cluster/docker/other", reference="docker.io/library/other:1", version=0
    )
    assert other.current is not None
    current = other.current.model_copy(update={"image_id": "e" * 64})
    other = other.but(image_id="e" * 64, current=current)
    await gateway.catalog.images.change(other.key, lambda _: Change(other), Deadline.after(5))
    await gateway.announce()
    await gateway.announce(images=("e" * 64,))
    assert await gateway.held.images("cluster") == {"e" * 64}
    await gateway.announce("n1", images=("e" * 64,))
    with pytest.raises(ConflictError, match="other images or nodes"):
        await gateway.announce("n1")


async def test_a_job_that_ends_while_it_is_announced_keeps_no_promise(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its reservation held may be gone, so the images must be looked up again."""
    await gateway.announce()
    jobs = gateway.catalog.jobs
    store = jobs.change

    async def ends(key: str, step: Step[JobRecord], deadline: Deadline) -> JobRecord | None:
        monkeypatch.undo()
        await gateway.jobs.release("17")
        return await store(key, step, deadline)

    monkeypatch.setattr(jobs, "change", ends)
    with pytest.raises(ConflictError, match="has ended at this very moment"):
        await gateway.announce("n1")
    assert (await gateway.announce("n1")).node_count == 1


async def test_what_ended_long_ago_is_forgotten(gateway: Gateway) -> None:
    await gateway.begun(*NODES)
    await gateway.jobs.release("17")
    await eventually(gateway.quiet, within=5)
    await gateway.jobs.overdue(100)
    assert await gateway.stagings.overdue(100) == 0
    assert len(await gateway.all_stagings()) == 3, "kept for a while"
    past = utcnow() - timedelta(seconds=1)
    for staging in await gateway.all_stagings():
        aged = put(staging.but(due_at=past))
        await gateway.catalog.stagings.change(staging.key, aged, Deadline.after(5))
    await gateway.change_job(due_at=past)
    assert await gateway.stagings.overdue(100) == 0, "nothing goes before its events are sent"
    await gateway.published()
    await gateway.stagings.overdue(100)
    assert await gateway.all_stagings() == []
    await gateway.jobs.overdue(100)
    assert await gateway.catalog.jobs.get("17") is None


async def test_the_same_id_for_another_user_is_another_job(gateway: Gateway) -> None:
    """The end of the first was lost, and the scheduler has come round to its id."""
    await gateway.announce("n1", uid=1000)
    assert (await gateway.announce("n1", uid=1000)).uid == 1000
    with pytest.raises(ConflictError, match="for another user; release it first"):
        await gateway.announce("n1", uid=2000)
    await gateway.jobs.release("17")
    await eventually(gateway.quiet, within=5)
    assert (await gateway.announce("n1", uid=2000)).uid == 2000


async def test_a_gateway_whose_clock_is_behind_is_understood_by_nodes(gateway: Gateway) -> None:
    """The gateways before it were ahead when they took the job, and its release."""
    ahead = timedelta(hours=1)
    await gateway.begun("n1")
    first = await gateway.staging("n1")
    await gateway.change_job(announced_at=first.announced_at + ahead)
    moved = put(first.but(announced_at=first.announced_at + ahead))
    await gateway.catalog.stagings.change(first.key, moved, Deadline.after(5))
    await gateway.published()

    released = await gateway.jobs.release("17")
    await eventually(gateway.quiet, within=5)
    [release] = [each.event for each in await gateway.catalog.pending(utcnow(), 10)]
    assert released.released_at is not None
    assert isinstance(release, JobReleased)
    assert release.time >= released.released_at >= first.announced_at + ahead
    await gateway.change_job(released_at=released.released_at + ahead)
    await gateway.published()

    again = await gateway.begun("n1")
    assert again.announced_at > released.released_at + ahead
    [allocation] = [each.event for each in await gateway.catalog.pending(utcnow(), 10)]
    assert isinstance(allocation, JobAllocated)
    assert allocation.time == again.announced_at
    assert await gateway.state("n1") is StagingState.PENDING
