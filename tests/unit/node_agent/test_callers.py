"""Processes that jobs are tied to: seen to end, at once or a little later, and told apart."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from services.node_agent import callers
from services.node_agent.callers import Caller, ended, identify, is_running
from services.node_agent.errors import CallerUnseenError, JobEndedError, JobNotTiedError
from services.node_agent.job import SITE
from shared.api import MountRequest
from shared.deadline import Deadline
from shared.events import JobAllocated, NodeImage
from tests.support.conditions import eventually
from tests.support.node_users import ADA

from .conftest import PATIENCE, Node

# Its first thread ends, the others do not.
LEADERLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def nothing_can_be_watched(_pid: int, _flags: int = 0) -> int:
    raise OSError(38, "Function not implemented")


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command or ("sleep", "600")) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture(params=["pidfd", "polling"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "polling":
        monkeypatch.setattr(os, "pidfd_open", nothing_can_be_watched)
        monkeypatch.setattr(callers, "POLL_SECONDS", 0.01)


def request(image: NodeImage, *, tied: bool = True) -> MountRequest:
    return MountRequest(
        job_id="j", wait=PATIENCE, until_caller_exits=tied, **image.model_dump()
    )  # fmt: skip


@pytest.mark.usefixtures("_either_way")
async def test_the_end_is_seen_even_before_the_parent_has_noticed() -> None:
    with process() as child:
        caller = identify(child.pid)
        waiting = asyncio.create_task(ended(caller))
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()
        assert is_running(caller)
        child.kill()
        await asyncio.wait_for(waiting, PATIENCE)
        assert not is_running(caller)
    await asyncio.wait_for(ended(caller), PATIENCE)


@pytest.mark.usefixtures("_either_way")
async def test_another_process_with_the_same_id_is_not_waited_for() -> None:
    with process() as child:
        earlier = identify(child.pid).model_copy(update={"started": 1})
        assert not is_running(earlier)
        await asyncio.wait_for(ended(earlier), PATIENCE)


async def test_a_process_whose_first_thread_has_ended_still_runs() -> None:
    with process(sys.executable, "-c", LEADERLESS) as child:
        stat = f"/proc/{child.pid}/stat"

        def leaderless() -> bool:
            with open(stat, "rb") as file:  # noqa: PTH123
                return b") Z " in file.read()

        await eventually(leaderless, within=PATIENCE)
        assert is_running(identify(child.pid))


def test_who_is_in_another_pid_namespace_or_gone_is_refused_with_advice() -> None:
    with pytest.raises(CallerUnseenError, match="PID namespace"):
        identify(0)
    with process() as child:
        child.kill()
        child.wait()
        with pytest.raises(CallerUnseenError, match=f"process {child.pid}.*hidepid"):
            identify(child.pid)


@pytest.mark.usefixtures("_either_way")
async def test_a_killed_caller_s_job_gives_its_mount_back(node: Node) -> None:
    image = node.image("a")
    with process() as child:
        await node.jobs.mount(request(image), ADA, identify(child.pid))
        assert node.standing() == {image.image_id}
        child.kill()
        await eventually(lambda: not node.standing(), within=PATIENCE)
    assert node.jobs.view == {}
    assert list((node.settings.agent_dir / "jobs").iterdir()) == []


async def test_a_caller_that_dies_while_its_image_is_mounted_leaves_nothing(node: Node) -> None:
    node.mounter.gate.clear()
    with process() as child:
        mounting = asyncio.create_task(
            node.jobs.mount(request(node.image("a")), ADA, identify(child.pid))
        )
        await eventually(node.mounter.entered.is_set, within=PATIENCE)
        child.kill()
        await eventually(lambda: not node.jobs.view, within=PATIENCE)
        node.mounter.gate.set()
        with pytest.raises(JobEndedError):
            await mounting
    await eventually(lambda: not node.standing(), within=PATIENCE)


async def test_an_agent_that_stops_releases_what_is_over_and_nothing_else(node: Node) -> None:
    over, going_on = node.image("over"), node.image("going on")
    with process() as child:
        await node.jobs.mount(request(over), ADA, identify(child.pid))
        other = request(going_on).model_copy(update={"job_id": "k"})
        await node.jobs.mount(other, ADA, identify(os.getpid()))
        child.kill()
        child.wait()
        await node.jobs.stop(Deadline.after(PATIENCE))
    assert node.standing() == {going_on.image_id}


async def test_a_restarted_agent_watches_on_and_releases_what_is_over(
    node: Node, nodes: Callable[[], Node]
) -> None:
    image = node.image("a")
    with process() as child:
        await node.jobs.mount(request(image), ADA, identify(child.pid))
        await node.jobs.stop(Deadline.after(PATIENCE))
        second = nodes()
        await second.jobs.adopt()
        assert second.jobs.view == {"j": (image.image_id,)}
        await second.jobs.stop(Deadline.after(PATIENCE))
        child.kill()
    third = nodes()
    await third.jobs.adopt()
    assert third.jobs.view == {}
    assert third.standing() == set()

    with process() as child:
        await third.jobs.mount(request(image), ADA, identify(child.pid))
        await third.jobs.stop(Deadline.after(PATIENCE))
        fourth = nodes()
        await fourth.jobs.adopt()
        assert fourth.standing() == {image.image_id}
        child.kill()
        await eventually(lambda: not fourth.standing(), within=PATIENCE)


async def test_a_job_that_is_there_already_cannot_be_tied(node: Node) -> None:
    image = node.image("a")
    me = identify(os.getpid())
    await node.jobs.mount(request(image, tied=False), ADA)
    with pytest.raises(JobNotTiedError, match="another id"):
        await node.jobs.mount(request(image), ADA, me)
    await node.jobs.release("j", 1000)
    await node.jobs.mount(request(image), ADA, me)
    await node.jobs.mount(request(image), ADA, me)
    with pytest.raises(JobNotTiedError):
        await node.jobs.mount(request(image), ADA, Caller(pid=1, started=0))


async def test_a_scheduler_s_job_does_not_end_with_who_took_its_id(node: Node) -> None:
    image = node.image("a")
    with process() as child:
        await node.jobs.mount(request(image), ADA, identify(child.pid))
        (watch,) = [task for task in asyncio.all_tasks() if task.get_name() == "watch-j"]
        event = JobAllocated(
            correlation_id="j", node="n1", job_id="j", system="local", images=(image,)
        )
        await node.jobs.allocated(event)
        child.kill()
    await asyncio.wait([watch], timeout=PATIENCE)
    assert watch.cancelled()
    assert node.standing() == {image.image_id}
    await node.jobs.release("j", SITE)
    assert node.standing() == set()
