"""Jobs under events that are doubled, late and out of order, and under strangers."""

import asyncio
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from services.node_agent.callers import identify
from services.node_agent.errors import (
    ForbiddenError,
    ImageNotPlacedError,
    JobEndedError,
    TooManyJobsError,
)
from services.node_agent.job import SITE
from services.node_agent.jobs import MAX_IMAGES_PER_JOB, MAX_JOBS_PER_USER
from shared.api import MountRequest
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, InvalidInputError, NotFoundError
from shared.events import JobAllocated, JobReleased, NodeImage
from tests.support.conditions import eventually
from tests.support.node_users import ADA, BOB

from .conftest import PATIENCE, Node

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
JOB = "4711[3].batch:0"


def allocated(*images: NodeImage, at: datetime = NOON, system: str = "local") -> JobAllocated:
    return JobAllocated(
        correlation_id=JOB, node="n1", job_id=JOB, system=system, images=images, time=at
    )


def released(at: datetime = NOON) -> JobReleased:
    return JobReleased(correlation_id=JOB, node="n1", job_id=JOB, time=at)


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def request(image: NodeImage, job_id: str = JOB, wait: float = PATIENCE) -> MountRequest:
    return MountRequest(job_id=job_id, wait=wait, **image.model_dump())


async def test_an_allocated_job_has_all_its_images_until_it_is_released(node: Node) -> None:
    one, two = node.image("one"), node.image("two")
    assert await node.jobs.allocated(allocated(one, two)) is not None
    assert node.standing() == {one.image_id, two.image_id}
    assert set(node.jobs.view[JOB]) == {one.image_id, two.image_id}
    await node.jobs.released(released(later(1)))
    assert node.standing() == set()
    assert node.jobs.view == {}


async def test_doubled_events_change_nothing(node: Node) -> None:
    image = node.image("a")
    for _ in range(2):
        assert await node.jobs.allocated(allocated(image)) is not None
    assert node.mounter.mounted == [image.image_id]
    for _ in range(2):
        await node.jobs.released(released(later(1)))
    assert node.standing() == set()


async def test_an_allocation_that_comes_after_its_release_mounts_nothing(node: Node) -> None:
    await node.jobs.released(released(later(1)))
    assert await node.jobs.allocated(allocated(node.image("a"))) is None
    assert node.standing() == set()
    assert node.jobs.view == {}


async def test_a_job_id_that_is_used_again_is_a_new_job(node: Node) -> None:
    image = node.image("a")
    await node.jobs.released(released(later(1)))
    assert await node.jobs.allocated(allocated(image, at=later(2))) is not None
    await node.jobs.released(released(later(1)))  # once more, of the former job
    assert node.standing() == {image.image_id}


async def test_a_release_by_the_epilog_makes_a_doubled_allocation_stale(node: Node) -> None:
    event = allocated(node.image("a"))
    await node.jobs.allocated(event)
    await node.jobs.release(JOB, SITE)
    assert await node.jobs.allocated(event) is None
    assert node.standing() == set()


async def test_a_release_while_images_are_staged_leaves_no_mount(node: Node) -> None:
    node.mounter.gate.clear()
    staging = asyncio.create_task(node.jobs.allocated(allocated(node.image("a"))))
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    await node.jobs.released(released(later(1)))
    node.mounter.gate.set()
    assert await staging is None
    await eventually(lambda: not node.standing(), within=PATIENCE)
    assert list((node.settings.agent_dir / "jobs").iterdir()) == []


async def test_a_rank_that_waits_while_its_job_ends_is_told(node: Node) -> None:
    node.mounter.gate.clear()
    rank = asyncio.create_task(node.jobs.mount(request(node.image("a")), ADA))
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    await node.jobs.release(JOB, 1000)
    node.mounter.gate.set()
    with pytest.raises(JobEndedError):
        await rank
    await eventually(lambda: not node.standing(), within=PATIENCE)


async def test_one_image_missing_fails_the_job_and_keeps_the_other(node: Node) -> None:
    there, missing = node.image("there"), node.image("missing")
    node.file(missing.image_id).unlink()
    with pytest.raises(ImageNotPlacedError):
        await node.jobs.allocated(allocated(there, missing))
    assert node.jobs.view == {JOB: (there.image_id,)}
    await node.jobs.released(released(later(1)))
    assert node.standing() == set()


async def test_a_job_of_which_nothing_came_is_forgotten(node: Node) -> None:
    missing = node.image("missing")
    node.file(missing.image_id).unlink()
    with pytest.raises(ImageNotPlacedError):
        await node.jobs.allocated(allocated(missing))
    assert node.jobs.view == {}
    assert list((node.settings.agent_dir / "jobs").iterdir()) == []


async def test_another_system_s_job_names_the_setting(node: Node) -> None:
    with pytest.raises(InvalidInputError, match=r"agent\.system"):
        await node.jobs.allocated(allocated(node.image("a"), system="other"))


async def test_only_its_maker_and_the_site_release_a_job(node: Node) -> None:
    image = node.image("a")
    await node.jobs.mount(request(image), ADA)
    with pytest.raises(ForbiddenError):
        await node.jobs.release(JOB, 1001)
    with pytest.raises(ForbiddenError):
        await node.jobs.mount(request(image), BOB)
    assert node.standing() == {image.image_id}
    await node.jobs.release(JOB, 1000)
    assert node.standing() == set()


async def test_who_takes_the_scheduler_s_job_id_loses_it_to_the_scheduler(node: Node) -> None:
    image = node.image("a")
    await node.jobs.mount(request(image), ADA)
    await node.jobs.allocated(allocated(image))
    with pytest.raises(ForbiddenError):
        await node.jobs.release(JOB, 1000)
    await node.jobs.mount(request(image), BOB)  # the job's ranks may run as anybody
    await node.jobs.release(JOB, SITE)
    assert node.standing() == set()


async def test_one_user_cannot_hold_jobs_without_end(node: Node) -> None:
    image = node.image("a")
    node.mounter.gate.clear()
    first = [
        asyncio.create_task(node.jobs.mount(request(image, f"j{n}"), ADA))
        for n in range(MAX_JOBS_PER_USER)
    ]
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    with pytest.raises(TooManyJobsError):
        await node.jobs.mount(request(image, "one-too-many"), ADA)
    node.mounter.gate.set()
    await node.jobs.mount(request(image, "of-another-user"), BOB)
    for waiting in first:
        waiting.cancel()
    await asyncio.gather(*first, return_exceptions=True)


async def test_a_killed_agent_s_jobs_are_taken_over(node: Node, nodes: Callable[[], Node]) -> None:
    kept, lost, orphan = node.image("kept"), node.image("lost"), node.image("orphan")
    await node.jobs.mount(request(kept, "first"), ADA)
    await node.jobs.allocated(allocated(kept, lost))
    node.stager.unstage(lost.image_id)  # what a reboot or an administrator does
    node.stager.stage(orphan.image_id)

    again = nodes()
    await again.jobs.adopt()
    assert again.standing() == {kept.image_id}
    assert again.jobs.view == {"first": (kept.image_id,), JOB: (kept.image_id,)}
    with pytest.raises(ForbiddenError):
        await again.jobs.release("first", 1001)
    await again.jobs.release("first", 1000)
    assert again.standing() == {kept.image_id}
    await again.jobs.released(released(later(1)))
    assert again.standing() == set()
    assert again.mounter.mounted == []


async def test_a_full_job_of_a_squatter_does_not_fail_the_scheduler_s(node: Node) -> None:
    held = [node.image(f"held{n}") for n in range(MAX_IMAGES_PER_JOB)]
    await asyncio.gather(*(node.jobs.mount(request(image), ADA) for image in held))
    wanted = node.image("wanted")
    with pytest.raises(InvalidInputError):
        await node.jobs.mount(request(wanted), ADA)
    assert await node.jobs.allocated(allocated(wanted)) is not None
    assert wanted.image_id in node.jobs.view[JOB]
    assert node.jobs.announced == (JOB,)


async def test_images_that_failed_take_no_room_in_their_job(node: Node) -> None:
    there = node.image("there")
    await node.jobs.mount(request(there), ADA)
    for n in range(MAX_IMAGES_PER_JOB):
        missing = node.image(f"missing{n}")
        node.file(missing.image_id).unlink()
        with pytest.raises(ImageNotPlacedError):
            await node.jobs.mount(request(missing), ADA)
    assert node.jobs.view == {JOB: (there.image_id,)}
    other = node.image("other")
    await node.jobs.mount(request(other), ADA)
    (record,) = await node.files.load()
    assert set(record.images) == {there.image_id, other.image_id}


async def test_an_image_of_which_one_request_failed_is_on_disk_for_the_other(node: Node) -> None:
    kept, image = node.image("kept"), node.image("a")
    await node.jobs.mount(request(kept), ADA)
    node.mounter.gate.clear()
    node.mounter.entered.clear()
    patient = asyncio.create_task(node.jobs.mount(request(image), ADA))
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    with pytest.raises(DeadlineExceededError):
        await node.jobs.mount(request(image, wait=0.1), ADA)
    await asyncio.gather(node.jobs.mount(request(kept), ADA))  # writes the job's file
    node.mounter.gate.set()
    await patient
    (record,) = await node.files.load()
    assert set(record.images) == {kept.image_id, image.image_id}


async def test_a_squatter_s_request_that_ends_at_the_same_time_ends_no_announced_job(
    node: Node,
) -> None:
    squatted, wanted = node.image("squatted"), node.image("wanted")
    node.mounter.gate.clear()
    squatting = asyncio.create_task(node.jobs.mount(request(squatted), ADA))
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    allocating = asyncio.create_task(node.jobs.allocated(allocated(wanted)))
    squatting.cancel()  # so it ends just after the scheduler's event has found the job
    node.mounter.gate.set()
    assert await allocating is not None
    assert squatting.cancelled()
    assert node.jobs.view == {JOB: (wanted.image_id,)}


async def test_the_site_s_job_does_not_end_with_a_squatter_s_process(node: Node) -> None:
    image = node.image("a")
    with subprocess.Popen(["sleep", "600"]) as squatter:
        await node.jobs.mount(request(image), ADA, identify(squatter.pid))
        await node.jobs.mount(request(image), SITE)
        squatter.kill()
    (record,) = await node.files.load()
    assert (record.owner, record.caller) == (SITE, None)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("watch-")]
    assert node.standing() == {image.image_id}
    await node.jobs.release(JOB, SITE)


async def test_only_the_scheduler_s_jobs_are_announced(node: Node) -> None:
    image = node.image("a")
    await node.jobs.mount(request(image, "mine"), ADA)
    await node.jobs.mount(request(image, "prolog"), SITE)
    assert list(node.jobs.announced) == []
    await node.jobs.allocated(allocated(image))
    assert list(node.jobs.announced) == [JOB]
    await node.jobs.released(released(later(1)))
    assert list(node.jobs.announced) == []


async def test_whose_an_announced_job_is_only_its_prolog_says(node: Node) -> None:
    image, other = node.image("a"), node.image("b")
    await node.jobs.allocated(allocated(image))
    # Its images are mounted for it, and who asks for one has to be let to that elsewhere.
    for user in (ADA, BOB, SITE):
        assert node.jobs.devices_of(JOB, image.image_id, user) == {}
    for job, wanted in ((JOB, other), ("another", image)):
        with pytest.raises(NotFoundError, match="has no image"):
            node.jobs.devices_of(job, wanted.image_id, ADA)
    devices = {"SLURM_JOB_GPUS": "1"}
    await node.jobs.prepare(JOB, (), ADA, Deadline.after(PATIENCE), devices=devices)
    assert node.jobs.devices_of(JOB, image.image_id, ADA) == devices
    with pytest.raises(ForbiddenError, match="not yours"):
        node.jobs.devices_of(JOB, image.image_id, BOB)
