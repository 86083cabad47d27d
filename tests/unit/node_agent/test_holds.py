"""One mount per image, for exactly as long as somebody holds it."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.node_agent.errors import MountFailedError
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from shared.image.errors import ImageCorruptError
from tests.support.conditions import eventually
from tests.support.users import REPOSITORY

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
        await node.holds.acquire(image, "hasty", Deadline.after(0.3))
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


async def test_a_wrong_size_fails_its_own_request_only(node: Node) -> None:
    image = node.image("a")
    wrong = image.model_copy(update={"size": image.size + 1})
    node.mounter.gate.clear()
    right = [asyncio.create_task(node.holds.acquire(image, n, soon())) for n in range(3)]
    await eventually(node.mounter.entered.is_set, within=PATIENCE)
    with pytest.raises(ImageCorruptError):
        await node.holds.acquire(wrong, "bad", soon())
    node.mounter.gate.set()
    await asyncio.gather(*right)
    with pytest.raises(ImageCorruptError):  # also now that it is mounted
        await node.holds.acquire(wrong, "bad", soon())
    assert node.mounter.mounted == [image.image_id]
    for n in range(3):
        await node.holds.release([image.image_id], n, soon())
    assert node.standing() == set()


async def test_a_mount_that_is_gone_is_made_again_for_all_that_hold_it(node: Node) -> None:
    image = node.image("a")
    await node.holds.acquire(image, "first", soon())
    shutil.rmtree(node.stager.path(image.image_id))
    views = await asyncio.gather(*(node.holds.acquire(image, n, soon()) for n in range(5)))
    assert {view.path for view in views} == {str(node.stager.path(image.image_id))}
    assert node.mounter.mounted == [image.image_id] * 2
    for n in range(5):
        await node.holds.release([image.image_id], n, soon())
    assert node.standing() == {image.image_id}
    await node.holds.release([image.image_id], "first", soon())
    assert node.standing() == set()


HUNG = """
import asyncio, sys, threading
from pathlib import Path
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from tests.unit.node_agent.conftest import GatedMounter, make_node

class Hung(GatedMounter):
    def mount(self, image, target):
        threading.Event().wait()

async def main():
    node = make_node(Path(sys.argv[1]), Hung())
    try:
        await node.holds.acquire(node.image("a"), "job", Deadline.after(0.2))
    except DeadlineExceededError:
        print("gave up", flush=True)
    await node.holds.close(Deadline.after(0.1))
    node.files.close()

asyncio.run(main())
"""


def test_a_hung_mount_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNG, tmp_path],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert "gave up" in done.stdout.splitlines()
