"""`dray pull`: what it prints, how it follows, how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from cli import follow, progress
from cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, RefusedError, UnreachableError
from cli.gateway import Gateway, PullWish
from cli.pull import pull
from shared.states import State
from tests.support.scripted_gateway import (
    Reply,
    Script,
    problem,
    says,
    scripted_gateway,
    streams,
)
from tests.support.views import REFERENCE, again, failed, image_view, pull_view, pulling

ASK = "POST /api/v1/pulls"
LOOK = "GET /api/v1/pulls/pull-1"
FOLLOW = "GET /api/v1/pulls/pull-1/events"
ACCEPTED = says(pull_view(State.INIT), 202)
Served = tuple[str, Script]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(follow, "LOOK_AGAIN", 0.01)
    with scripted_gateway() as found:
        found[1].on(ASK, ACCEPTED)
        yield found


def _pull(url: str, *, system: str | None = None, wait: bool = True, json: bool = False) -> int:
    return pull(Gateway(url), PullWish("alpine:3", system), wait=wait, json=json)


def test_each_state_has_a_line_with_its_bytes_and_the_end_says_what_it_became(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    steps = (
        pull_view(State.INIT),
        pulling(0, 4_000_000),
        pulling(4_000_000, 4_000_000),
        pull_view(State.CONVERSION),
        pull_view(State.TRANSFER),
        pull_view(State.READY),
    )
    script.on(FOLLOW, streams(*steps))
    assert _pull(url) == 0
    lines = [line.split("s  ", 1)[-1].strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:-1] == [
        "INIT        waiting for a converter",
        "PULLING     fetching layers from the registry: 4.0 MB in 2 layers, 1 re-used",
        "PULLING     4.0 MB of 4.0 MB in 2 layers, 1 re-used",
        "CONVERSION  making one squashfs of them",
        "TRANSFER    placing it on the shared file system",
    ]
    assert lines[-1].startswith(f"READY  {REFERENCE}  id aaaaaaaaaaaa, 3.5 MB, ")


def test_an_unchanged_image_is_ready_without_following(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(ASK, says(pull_view(State.READY), 200))
    assert _pull(url) == 0
    assert "unchanged" in capsys.readouterr().out
    assert [request for request, _ in script.asked] == [ASK]


def test_a_failure_ends_with_its_reason_and_says_what_stays_usable(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(FOLLOW, streams(failed("denied\x1b[2J", tries=3, image=image_view())))
    assert _pull(url) == EXIT_FAILED
    errors = capsys.readouterr().err
    assert "FAILURE after 3 tries: denied\N{REPLACEMENT CHARACTER}[2J" in errors
    assert "stays usable" in errors


def test_json_is_one_document_the_last_state(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(FOLLOW, streams(pulling(1, 2), pull_view(State.READY)))
    assert _pull(url, json=True) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "READY"


def test_no_wait_leaves_at_once(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    url, script = served
    assert _pull(url, wait=False) == 0
    assert "INIT" in capsys.readouterr().out
    assert len(script.asked) == 1


def test_following_survives_a_restart_of_the_gateway(served: Served) -> None:
    url, script = served
    script.on(
        FOLLOW,
        streams(pulling(1, 9), cut=True),
        problem(503, "catalog_unavailable", "starting"),
        streams(pull_view(State.READY)),
    )
    script.on(LOOK, says(pulling(5, 9)))
    assert _pull(url) == 0
    assert [request for request, _ in script.asked] == [ASK, FOLLOW, LOOK, FOLLOW, FOLLOW]


def test_following_gives_up_in_the_end_and_says_how_to_rejoin(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, script = served
    monkeypatch.setattr(follow, "PATIENCE", 0.05)
    script.on(FOLLOW, problem(503, "catalog_unavailable", "no database"))
    monkeypatch.setenv("DRAY_URL", url)
    rejoin = "(?s)no database.*: dray pull --system daint alpine:3$"
    with pytest.raises(UnreachableError, match=rejoin):
        _pull(url, system="daint")


def test_how_to_rejoin_names_the_gateway_that_was_named(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, script = served
    monkeypatch.setattr(follow, "PATIENCE", 0.05)
    monkeypatch.delenv("DRAY_URL", raising=False)
    script.on(FOLLOW, problem(503, "catalog_unavailable", "no database"))
    with pytest.raises(UnreachableError, match=f"(?s): dray pull --url {url} alpine:3$"):
        _pull(url)


def test_following_goes_on_at_another_gateway_when_one_ends(served: Served) -> None:
    url, script = served
    with scripted_gateway() as (second_url, second):
        script.on(FOLLOW, streams(pulling(1, 9), cut=True))
        script.on(LOOK, problem(503, "stopping", "a moment"))
        second.on(LOOK, says(pulling(5, 9)))
        second.on(FOLLOW, streams(pull_view(State.READY)))
        assert _pull(f"{url},{second_url}") == 0
    assert [request for request, _ in script.asked] == [ASK, FOLLOW, LOOK]
    assert [request for request, _ in second.asked] == [LOOK, FOLLOW]


def test_a_private_image_and_a_warning_are_told(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    view = pull_view(
        State.READY, image=image_view(private=True), private=True, warning="nobody\x1b reads it"
    )
    script.on(ASK, says(view, 200))
    assert _pull(url) == 0
    shown = capsys.readouterr()
    assert "  unchanged, private, id aaaaaaaaaaaa" in shown.out
    assert shown.err == "dray: nobody\N{REPLACEMENT CHARACTER} reads it\n"


def test_a_silent_pull_is_not_given_up_for_the_first_trouble(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, script = served
    monkeypatch.setattr(follow, "PATIENCE", 0.05)

    def after_a_long_wait() -> Reply:
        time.sleep(0.1)
        return problem(503, "catalog_unavailable", "a moment")

    script.on(FOLLOW, after_a_long_wait, streams(pull_view(State.READY)))
    assert _pull(url) == 0


def test_a_gateway_that_went_away_is_told_once_and_what_comes_after_it_silently(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, script = served
    monkeypatch.setattr(follow, "NOTICE", 0.02)
    down = [problem(503, "catalog_unavailable", "starting")] * 6
    ready = streams(pulling(2, 9), pull_view(State.READY))
    script.on(FOLLOW, streams(pulling(1, 9), cut=True), *down, ready)
    script.on(LOOK, says(pulling(5, 9)))
    assert _pull(url) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "answers" in line] == [
        line for line in lines if line.endswith("no gateway answers; waiting (starting)")
    ]
    assert len([line for line in lines if "waiting (starting)" in line]) == 1


def test_a_try_that_failed_is_told_with_its_reason_and_the_next_one(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    steps = (again("no\x1b[2J route"), again("refused", tries=3), pulling(0, 4_000_000))
    script.on(FOLLOW, streams(pulling(0, 4_000_000), *steps, pull_view(State.READY)))
    assert _pull(url) == 0
    lines = [line.split("s  ", 1)[-1].strip() for line in capsys.readouterr().out.splitlines()]
    fetching = "PULLING     fetching layers from the registry: 4.0 MB in 2 layers, 1 re-used"
    assert lines[1:-1] == [
        fetching,
        "INIT        try 2 in a moment: no\N{REPLACEMENT CHARACTER}[2J route",
        "INIT        try 3 in a moment: refused",
        fetching,
    ]


def test_a_pull_that_a_newer_one_replaced_is_told_at_once(served: Served) -> None:
    url, script = served
    script.on(FOLLOW, problem(404, "not_found", "a newer pull took its place"))
    with pytest.raises(RefusedError, match="newer pull"):
        _pull(url)


def test_ctrl_c_leaves_the_pull_running_and_says_how_to_rejoin(served: Served) -> None:
    url, script = served
    following, over = threading.Event(), threading.Event()

    def hold() -> Reply:
        following.set()
        over.wait(30)
        return streams(pull_view(State.READY))

    script.on(FOLLOW, hold)
    command = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", "pull", "alpine:3"],
        env=os.environ | {"DRAY_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.wait(30)
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=30)
    finally:
        over.set()
        command.kill()
        command.wait()
    assert command.returncode == EXIT_INTERRUPTED
    assert "goes on without us. Rejoin it with: dray pull alpine:3" in errors


def test_bars_show_layers_and_hold_no_more_than_a_screen_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.answers import read_pull  # noqa: PLC0415

    monkeypatch.setattr(progress, "MAX_BARS", 1)
    bars = progress.Bars()
    view = json.loads(pulling(250, 1000).model_dump_json())
    view["progress"]["layers"][1]["total"] = 5
    bars.update(read_pull(view))
    whole, layer = bars.drawing.tasks
    assert whole.description.strip() == "PULLING"
    assert (whole.completed, whole.total) == (250, 1000)
    assert "left" in whole.fields["note"]
    bars.away(3.2, "refused")
    assert whole.fields["note"] == "no gateway answers; waiting (3.2 s)"
    bars.update(read_pull(view))
    assert "left" in whole.fields["note"]
    assert layer.total == 1000
    assert "PULLING     250 B of 1.0 kB" in capsys.readouterr().out
