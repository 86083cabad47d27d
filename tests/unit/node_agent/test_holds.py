"""One mount per image, for exactly as long as somebody holds it."""

import asyncio

import pytest

from services.node_agent.errors import MountFailedError
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from tests.support.conditions import eventually

from .conftest import PATIENCE, Node


def soon() -> Deadline:
    return Deadline.after(PATIENCE)


async def test_twenty_requests_at_once_make_one_mount(node: Node) -> None:
    image = node.image("a")
    views = await asyncio.gather(*(node.holds.acquire(image, n, soon()) for n in range(20)))
    assert node.mounter.mounted == [image.image_id]
    assert {view.path for view in views} == {str(node.stager.path(image.image_id))}


async def test_the_last_holder_takes_the_mount_with_it(node: Node) -> None:
    image = node.image("a")
    await node.holds.acquire(image, "first", soon())
    await node.holds.acquire(image, "second", soon())
    await node.holds.release([image.image_id], "first", soon())
    assert node.standing() == {image.image_id}
    await node.holds.release([image.image_id], "first", soon())  # doubled: not the second's
    assert node.standing() == {image.image_id}
    await node.holds.release([image.image_id], "second", soon())
    assert node.standing() == set()
    assert node.holds.views == ()


async def test_who_gives_up_waiting_leaves_nothing_behind(node: Node) -> None:
    image = node.image("a")
    node.mounter.gate.clear()
    with pytest.raises(DeadlineExceededError):
        await node.holds.acquire(image, "hasty", Deadline.after(0.05))
    node.mounter.gate.set()
    await eventually(lambda: node.mounter.mounted and not node.standing(), within=PATIENCE)
    assert node.holds.views == ()


async def test_who_gives_up_does_not_take_it_from_others(node: Node) -> None:
    image = node.image("a")
    node.mounter.gate.clear()
    patient = asyncio.create_task(node.holds.acquire(image, "job", soon()))
    with pytest.raises(DeadlineExceededError):  # another rank of the same job
        await node.holds.acquire(image, "job", Deadline.after(0.05))
    node.mounter.gate.set()
    await patient
    assert node.standing() == {image.image_id}
    assert node.mounter.mounted == [image.image_id]


async def test_a_failure_reaches_all_that_wait_and_is_not_kept(node: Node) -> None:
    image = node.image("a")
    node.mounter.gate.clear()
    node.mounter.failure = MountFailedError("the kernel says no")
    waiting = [asyncio.create_task(node.holds.acquire(image, n, soon())) for n in range(5)]
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    node.mounter.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [MountFailedError] * 5
    node.mounter.failure = None
    await node.holds.acquire(image, "later", soon())
    assert node.mounter.mounted == [image.image_id]


async def test_a_hold_that_comes_during_an_unmount_gets_a_fresh_mount(node: Node) -> None:
    image = node.image("a")
    await node.holds.acquire(image, "old", soon())
    leaving = asyncio.create_task(node.holds.release([image.image_id], "old", soon()))
    await asyncio.sleep(0)  # the worker runs
    await node.holds.acquire(image, "new", soon())
    await leaving
    assert node.standing() == {image.image_id}
    assert [view.image_id for view in node.holds.views] == [image.image_id]
    await node.holds.release([image.image_id], "new", soon())
    assert node.standing() == set()


async def test_who_is_cancelled_when_the_mount_is_just_there_leaves_nothing_behind(
    node: Node,
) -> None:
    image = node.image("a")
    node.mounter.gate.clear()
    acquiring = asyncio.create_task(node.holds.acquire(image, "job", soon()))
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    (work,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("mount-")]
    work.add_done_callback(lambda _: acquiring.cancel())
    node.mounter.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    assert node.mounter.mounted == [image.image_id]
    await eventually(lambda: not node.standing(), within=PATIENCE)
