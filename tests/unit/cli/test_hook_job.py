"""`dray hook allocate` and `release`: what a gateway is told, and what is kept for it."""

from pathlib import Path

import pytest

from cli import hook_job
from cli.errors import RefusedError, UnreachableError
from cli.gateway import Gateway
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
    script.on(ANNOUNCE, DONE)
    allocate(Gateway(url), _job(ID), notes)
    assert _kept(tmp_path) == []
    assert [request for request, _ in script.asked] == [ANNOUNCE]
