"""`dray hook allocate` and `release`: what a gateway is told, and what is kept for it."""

import os
import pwd
from pathlib import Path

import pytest

from cli import hook_job
from cli.errors import RefusedError, UnreachableError
from cli.gateway import Gateway
from cli.hook_guard import one_line
from cli.hook_job import Allocation, allocate, failures_of, release
from cli.hook_notes import Notes
from cli.hook_submit import NoImageError
from shared.states import State
from tests.support.scripted_gateway import Reply, Script, problem, says
from tests.support.views import failed, image_view, pull_view

ANNOUNCE = "POST /api/v1/jobs"
RELEASE = "DELETE /api/v1/jobs/17"
LOOK = "GET /api/v1/pulls/pull-1"
DONE = Reply(b"{}", 202)
ID = "c" * 64
Served = tuple[str, Script]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_job, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(hook_job, "TRY_AGAIN", 0.01)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "spool")


def _kept(tmp_path: Path) -> list[str]:
    return sorted(path.stem for path in (tmp_path / "spool").glob("*.ended"))


def _job(*images: str, pulls: tuple[str, ...] = ()) -> Allocation:
    return Allocation("17", "nid[001-128]", images, pulls, 1000, "cluster")


def test_a_job_is_announced_as_the_scheduler_writes_it(served: Served, notes: Notes) -> None:
    url, script = served
    script.on(ANNOUNCE, DONE)
    allocate(Gateway(url), _job(ID), notes)
    assert script.asked == [
        (
            ANNOUNCE,
            {
                "job_id": "17",
                "nodes": "nid[001-128]",
                "images": [ID],
                "uid": 1000,
                "system": "cluster",
            },
        )
    ]


def test_what_is_pulled_is_waited_for(served: Served, notes: Notes) -> None:
    url, script = served
    script.on(LOOK, says(pull_view(State.INIT)), says(pull_view(State.READY)))
    script.on(ANNOUNCE, DONE)
    allocate(Gateway(url), _job(ID, pulls=("pull-1", ID)), notes)
    assert script.asked[-1][1]["images"] == [image_view().id, ID]


def test_a_pull_that_failed_announces_nothing(served: Served, notes: Notes) -> None:
    url, script = served
    script.on(LOOK, says(failed("no such tag")))
    with pytest.raises(NoImageError, match="cannot be had: no such tag"):
        allocate(Gateway(url), _job(pulls=("pull-1",)), notes)
    assert [request for request, _ in script.asked] == [LOOK]
    assert failures_of(Gateway(url), ["pull-1"]) == [
        "docker.io/library/alpine:3 cannot be had: no such tag"
    ]


def test_an_id_that_is_used_again_is_released_first(served: Served, notes: Notes) -> None:
    url, script = served
    conflict = problem(409, "conflict", "already announced")
    script.on(ANNOUNCE, conflict, conflict, DONE)
    script.on(RELEASE, DONE)
    allocate(Gateway(url), _job(ID), notes)
    assert [request for request, _ in script.asked] == [
        *(ANNOUNCE, RELEASE, ANNOUNCE, RELEASE, ANNOUNCE)
    ]


def test_other_refusals_are_told(served: Served, notes: Notes) -> None:
    url, script = served
    script.on(ANNOUNCE, problem(403, "not_allowed", "you are no admin"))
    with pytest.raises(RefusedError, match="you are no admin"):
        allocate(Gateway(url), _job(ID), notes)


def test_an_end_that_nobody_heard_of_is_told_by_the_next_hook(
    served: Served, notes: Notes, tmp_path: Path
) -> None:
    with pytest.raises(UnreachableError):
        release(Gateway("http://127.0.0.1:1"), "17", notes)
    assert _kept(tmp_path) == ["17"]

    url, script = served
    script.on("DELETE /api/v1/jobs/18", DONE)
    script.on(RELEASE, problem(404, "not_found", "there is no job 17"))
    release(Gateway(url), "18", notes)
    assert _kept(tmp_path) == []
    assert [request for request, _ in script.asked] == ["DELETE /api/v1/jobs/18", RELEASE]


def test_an_id_that_runs_again_is_not_ended_by_what_was_noted(
    served: Served, notes: Notes, tmp_path: Path
) -> None:
    url, script = served
    notes.add("17")
    script.on(RELEASE, DONE)
    script.on(ANNOUNCE, DONE)
    allocate(Gateway(url), _job(ID), notes)
    assert _kept(tmp_path) == []
    # Without its release, the same job announced again would change nothing on the nodes.
    assert [request for request, _ in script.asked] == [RELEASE, ANNOUNCE]
    allocate(Gateway(url), _job(ID), notes)
    assert [request for request, _ in script.asked] == [RELEASE, ANNOUNCE, ANNOUNCE]


def test_what_was_noted_is_told_before_pulls_are_waited_for(served: Served, notes: Notes) -> None:
    url, script = served
    notes.add("17")
    script.on(RELEASE, problem(404, "not_found", "there is no job 17"))
    script.on(LOOK, says(pull_view(State.READY)))
    script.on(ANNOUNCE, DONE)
    allocate(Gateway(url), _job(pulls=("pull-1",)), notes)
    assert [request for request, _ in script.asked] == [RELEASE, LOOK, ANNOUNCE]


def test_a_job_that_runs_again_unannounced_is_not_ended_by_the_next_hook(
    served: Served, notes: Notes, tmp_path: Path
) -> None:
    url, script = served
    notes.add("17")
    with pytest.raises(UnreachableError):
        allocate(Gateway("http://127.0.0.1:1"), _job(ID), notes)
    assert _kept(tmp_path) == []
    script.on("DELETE /api/v1/jobs/18", DONE)
    release(Gateway(url), "18", notes)
    assert [request for request, _ in script.asked] == ["DELETE /api/v1/jobs/18"]


def test_an_end_that_can_neither_be_told_nor_noted_is_both_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spool = tmp_path / "file/spool"
    with pytest.raises(UnreachableError) as told:
        release(Gateway("http://127.0.0.1:1"), "17", Notes(spool))
    said = one_line(told.value)
    assert said.startswith("no gateway answers")
    assert "the end of job 17 cannot be noted for later: Not a directory" in said
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert f"install -d -o {user} -m 755 {spool}" in said


def test_a_spool_that_cannot_be_read_keeps_no_job_from_being_announced(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    spool = tmp_path / "spool"
    (spool / "17.ended").mkdir(parents=True)  # nobody can unlink that
    script.on(ANNOUNCE, DONE)
    script.on(RELEASE, DONE)
    allocate(Gateway(url), _job(ID), Notes(spool))
    assert ANNOUNCE in [request for request, _ in script.asked]
    assert f"install -d -o {pwd.getpwuid(os.geteuid()).pw_name}" in capsys.readouterr().err
