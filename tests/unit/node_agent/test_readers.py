"""On a node, a private image is there only for its readers."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from services.node_agent.errors import ImageNotPlacedError
from services.node_agent.job import SITE
from services.node_agent.readers import User, may_read
from shared.api import MountRequest
from shared.deadline import Deadline
from shared.events import JobAllocated, NodeImage
from tests.support.node_users import ADA, BOB
from tests.unit.node_agent.conftest import Node


@pytest.mark.parametrize(
    ("content", "user", "allowed"),
    [
        (b"{}", ADA, True),
        (b'{"readers": null}', ADA, True),
        (b'{"readers": {"uids": [1000], "gids": []}}', ADA, True),
        (b'{"readers": {"uids": [1000], "gids": []}}', BOB, False),
        (b'{"readers": {"uids": [], "gids": [50]}}', User(1001, frozenset({1001, 50})), True),
        (b'{"readers": {"uids": [50], "gids": [1000]}}', User(1001, frozenset({50})), False),
        (b'{"readers": {"uids": [], "gids": []}}', ADA, False),
        (b"", ADA, False),
        (b"{", ADA, False),
        (b'{"readers": 7}', ADA, False),
    ],
)
def test_the_sidecar_says_who_may(
    content: bytes, user: User, allowed: bool, tmp_path: Path
) -> None:
    sidecar = tmp_path / "image.json"
    sidecar.write_bytes(content)
    assert may_read(sidecar, user) is allowed


def test_an_image_without_a_sidecar_is_nobodys(tmp_path: Path) -> None:
    assert not may_read(tmp_path / "image.json", ADA)


def private(node: Node, uids: str) -> NodeImage:
    image = node.image("private")
    say(node, image, uids)
    return image


def say(node: Node, image: NodeImage, uids: str) -> None:
    text = f'{{"readers": {{"uids": [{uids}]}}}}'
    node.file(image.image_id).with_suffix(".json").write_text(text)


def wanted(image: NodeImage, job: str = "j") -> MountRequest:
    return MountRequest(job_id=job, **dict(image))


async def test_who_may_not_have_it_is_told_what_everybody_is_told_of_nothing(node: Node) -> None:
    image = private(node, "1000")
    absent = image.model_copy(update={"image_id": "0" * 64})
    with pytest.raises(ImageNotPlacedError) as refused:
        await node.jobs.mount(wanted(image), BOB)
    with pytest.raises(ImageNotPlacedError) as nothing:
        await node.jobs.mount(wanted(absent), BOB)
    assert refused.value.message.replace(image.image_id, "0" * 64) == nothing.value.message
    # Nor does a wrong size tell that it is there.
    with pytest.raises(ImageNotPlacedError):
        await node.jobs.mount(wanted(image.model_copy(update={"size": 1})), BOB)
    assert node.standing() == set()
    await node.jobs.mount(wanted(image), ADA)
    assert await node.jobs.readable([image.image_id], ADA) == {image.image_id}
    assert await node.jobs.readable([image.image_id], BOB) == frozenset()


async def test_a_job_of_the_scheduler_opens_it_to_nobody_else(node: Node) -> None:
    image = private(node, "1000")
    event = JobAllocated(correlation_id="7", node="n1", job_id="7", system="local", images=(image,))
    await node.jobs.allocated(event)
    with pytest.raises(ImageNotPlacedError):
        await node.jobs.mount(wanted(image, "7"), BOB)
    await node.jobs.mount(wanted(image, "7"), ADA)
    await node.jobs.mount(wanted(image, "7"), SITE)


async def test_whoever_is_taken_off_gets_no_other_mount(node: Node) -> None:
    image = private(node, "1000, 1001")
    await node.jobs.mount(wanted(image), BOB)
    say(node, image, "1000")
    with pytest.raises(ImageNotPlacedError):
        await node.jobs.mount(wanted(image), BOB)
    await node.holds.require_readable(image.image_id, ADA, Deadline.after(5))


async def test_a_private_image_is_mounted_where_only_the_admitted_may_go(
    nodes: Callable[[], Node],
) -> None:
    node = nodes()
    await node.jobs.adopt()
    image, public = private(node, "1000, 1001"), node.image("public")
    view = await node.jobs.mount(wanted(image), SITE)
    await node.jobs.mount(wanted(public), SITE)
    assert node.standing() == {public.image_id}
    room = Path(view.path).parent
    assert room.stat().st_mode & 0o077 == 0
    assert (Path(view.path) / "marker").is_file()
    await node.jobs.mount(wanted(image), BOB)
    await node.jobs.mount(wanted(image), BOB)
    await node.jobs.mount(wanted(image), ADA)
    acl = os.getxattr(room, "system.posix_acl_access")
    users = [uid for tag, perm, uid in struct.iter_unpack("<HHI", acl[4:]) if (tag, perm) == (2, 5)]
    assert users == [1000, 1001]
    # The next agent takes it over as it is, and takes it away at its end.
    after = nodes()
    await after.jobs.adopt()
    assert after.mounter.mounted == []
    assert [each.path for each in after.holds.views if each.image_id == image.image_id] == [
        view.path
    ]
    await after.jobs.release("j", SITE)
    assert not room.exists()
    assert after.standing() == set()
