"""`dray hook prolog` and `epilog`: what an agent is asked, and what the job finds of it."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli import hook_node
from cli.agent import Whose
from cli.errors import UnreachableError
from cli.hook_node import NotPreparedError, Place, Wanted
from tests.support.scripted_gateway import Reply, Script, problem, says, scripted_agent
from tests.support.views import failed

PREPARE = "POST /v1/jobs/17/prepare"
RELEASE = "DELETE /v1/jobs/17"
LOOK = "GET /api/v1/pulls/pull-1"
ID, DIGEST = "c" * 64, "d" * 64
IMAGES = f"{ID},{DIGEST},4096"
NOWHERE = "http://127.0.0.1:1"
MINE = os.getuid()


def _answer(state: str, message: str = "") -> Reply:
    image = {"image_id": ID, "content_digest": DIGEST, "size": 4096}
    mount = {"image_id": ID, "path": "/mnt/it"}
    ready = state == "ready"
    body: dict[str, Any] = {
        "state": state,
        "message": message,
        "mounts": [mount] if ready else [],
        "images": [image] if ready else [],
    }
    return Reply(json.dumps(body).encode())


@dataclass(frozen=True, slots=True)
class Node:
    """One node: n1."""

    root: Path
    agent: Script

    @property
    def place(self) -> Place:
        return Place("n1", str(self.root / "%n.sock"), self.root / "state-%n")

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in (self.root / "state-n1").glob("*"))

    def verdict(self) -> list[str]:
        return (self.root / "state-n1/17.images").read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(hook_node, "TRY_AGAIN", 0.01)
    monkeypatch.setattr(hook_node, "AGENT_SECONDS", 0.2)
    monkeypatch.setattr(hook_node, "ANNOUNCED_SECONDS", 0.5)
    with scripted_agent(str(tmp_path / "n1.sock")) as agent:
        yield Node(tmp_path, agent)


def test_what_was_mounted_is_found_by_who_runs_the_prolog_alone(node: Node) -> None:
    node.agent.on(PREPARE, _answer("ready"))
    node.place.prolog("17", Whose(MINE), Wanted(IMAGES, ""), NOWHERE, 30)
    asked = node.agent.asked[0][1]
    assert asked["images"] == [{"image_id": ID, "content_digest": DIGEST, "size": 4096}]
    assert asked["uid"] == MINE
    assert 0 < asked["wait"] <= 28
    assert node.verdict() == [
        "ready",
        f"DRAY_IMAGE_ID={ID}",
        f"DRAY_IMAGES={IMAGES}",
        f"{ID} /mnt/it",
    ]
    found = (node.root / "state-n1/17.images").stat()
    assert stat.S_IMODE(found.st_mode) == 0o400
    assert found.st_uid == os.geteuid(), "the job's user could write to it"


def test_a_reason_is_left_in_one_line(node: Node) -> None:
    node.agent.on(PREPARE, _answer("failed", "it is\nnot there " + "x" * 3000))
    with pytest.raises(NotPreparedError):
        node.place.prolog("17", Whose(MINE), Wanted(IMAGES, ""), NOWHERE, 30)
    state, reason = node.verdict()
    assert state == "failed"
    assert reason.startswith("it is not there xxx")
    assert len(reason) == 1000


@pytest.mark.parametrize(
    ("images", "why"), [("not,an,image", "id,digest,size"), (";", "it names no image")]
)
def test_what_a_user_tampered_with_is_the_users_trouble(node: Node, images: str, why: str) -> None:
    with pytest.raises(NotPreparedError):
        node.place.prolog("17", Whose(MINE), Wanted(images, ""), NOWHERE, 30)
    assert why in node.verdict()[1]
    assert node.agent.asked == []


def test_an_agent_that_is_away_is_waited_for_only_so_long(tmp_path: Path, node: Node) -> None:
    (tmp_path / "n1.sock").unlink()
    with pytest.raises(NotPreparedError):
        node.place.prolog("17", Whose(MINE), Wanted(IMAGES, ""), NOWHERE, 30)
    assert "no node agent answers" in node.verdict()[1]


def test_a_job_whose_pull_failed_hears_why_from_a_gateway(
    node: Node, served: tuple[str, Script]
) -> None:
    url, gateway = served
    gateway.on(LOOK, says(failed("no such tag")))
    node.agent.on(PREPARE, _answer("failed", "nothing was announced"))
    with pytest.raises(NotPreparedError):
        node.place.prolog("17", Whose(MINE), Wanted("", "pull-1"), url, 30)
    assert node.verdict()[1].endswith("cannot be had: no such tag")
    assert len(node.agent.asked) == 1


def test_a_job_whose_pull_went_well_is_waited_for(node: Node, served: tuple[str, Script]) -> None:
    node.agent.on(PREPARE, _answer("failed", "nothing was announced"), _answer("ready"))
    node.place.prolog("17", Whose(MINE), Wanted(IMAGES, "pull-1"), served[0], 30)
    assert [asked["images"] for _, asked in node.agent.asked] == [[], []]
    assert node.verdict()[0] == "ready"


def test_the_end_leaves_nothing(node: Node) -> None:
    node.agent.on(PREPARE, _answer("ready"))
    node.agent.on(RELEASE, Reply(status=204))
    node.place.prolog("17", Whose(MINE), Wanted(IMAGES, ""), NOWHERE, 30)
    node.place.epilog("17", 30)
    node.place.epilog("17", 30)
    assert node.left == []


def test_an_end_without_an_agent_is_told_by_the_next_hook(node: Node) -> None:
    away = Place("n1", str(node.root / "nobody.sock"), node.root / "state-n1")
    with pytest.raises(UnreachableError):
        away.epilog("17", 30)
    assert node.left == ["17.ended"]
    node.agent.on(RELEASE, Reply(status=204))
    node.agent.on("DELETE /v1/jobs/18", Reply(status=204))
    node.place.epilog("18", 30)
    assert node.left == []
    assert [request for request, _ in node.agent.asked] == ["DELETE /v1/jobs/18", RELEASE]


def test_a_note_stays_while_an_agent_cannot_end_the_job(node: Node) -> None:
    node.agent.on(RELEASE, problem(500, "mount_failed", "busy"))
    for _ in range(2):
        with pytest.raises(Exception, match="busy"):
            node.place.epilog("17", 30)
    assert node.left == ["17.ended"]


def test_what_the_user_wants_in_the_image_is_asked_of_the_agent(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.agent.on(PREPARE, _answer("ready"))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    wanted = Wanted(IMAGES, "", "/scratch/${SLURM_JOB_ID}:/data:rw;/in:/in:ro", "gpu,mpich")
    node.place.prolog("17", Whose(MINE, 100), wanted, NOWHERE, 30)
    asked = node.agent.asked[0][1]
    assert asked["volumes"] == ["/scratch/17:/data:rw", "/in:/in:ro"]
    assert (asked["modules"], asked["gid"]) == (["gpu", "mpich"], 100)


def test_volumes_that_cannot_be_are_told_to_the_job(node: Node) -> None:
    with pytest.raises(NotPreparedError):
        node.place.prolog("17", Whose(MINE), Wanted(IMAGES, "", "/x:/etc"), NOWHERE, 30)
    assert "would hide /etc" in node.verdict()[1]
    assert node.agent.asked == []
