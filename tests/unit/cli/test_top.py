"""`dray top`: what it draws, what it makes of the live stream, and how it ends."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from cli.gateway import PAGE
from cli.site_now import SiteNow
from cli.top_view import frame
from shared.api import Overview, PullView, QueueStanding, QueueView, StageStanding, Worry
from shared.models import utcnow
from shared.states import IN_FLIGHT, State
from tests.support.scripted_gateway import Reply, Script, problem, says, scripted_gateway
from tests.support.terminals import read_all
from tests.support.views import failed, pull_view, pulling

SEEN_ONCE = "no converter \x1b[31mruns"


def overview(pulls: int = 1, *worries: Worry) -> Overview:
    stages = tuple(
        StageStanding(
            state=state,
            pulls=pulls if state is State.PULLING else 0,
            waiting=0,
            oldest_seconds=75.0,
        )
        for state in IN_FLIGHT
    )
    return Overview(at=utcnow(), version="1", worries=worries, stages=stages, failed=0)


def raw(model: Overview | PullView) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(model.model_dump_json())
    return found


def drawn(site: SiteNow, width: int = 120, rows: int | None = None) -> str:
    console = Console(width=width, height=rows or 25, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(frame(site, width, rows))
    return captured.get()


def test_the_verdict_and_what_keeps_users_waiting_come_first() -> None:
    site = SiteNow()
    worry = Worry(code="no_converter", level="critical", message=SEEN_ONCE)
    site.asked(raw(overview(3, worry)), [raw(pulling(30, 120, waiting="a slow registry"))], None)
    lines = drawn(site).splitlines()
    assert "users are waiting for what does not come" in lines[0]
    assert lines[1].startswith("▲ no converter \N{REPLACEMENT CHARACTER}[31mruns")
    assert "PULLING 3 (1 min 15 s)" in lines[2]
    assert "a slow registry" in drawn(site)
    assert "30 B/120 B" in drawn(site)
    assert "25 %" in drawn(site, width=80)


def test_a_quiet_site_says_so() -> None:
    site = SiteNow()
    site.asked(raw(overview(0)), [], None)
    assert "nobody is waiting" in drawn(site)
    assert "dray pull debian:12" in drawn(site)


def test_nobody_is_said_to_wait_where_nothing_was_asked_for() -> None:
    site = SiteNow()
    low = Worry(code="image_directory_low", level="critical", message="no room")
    site.asked(raw(overview(0, low)), [], None)
    assert "users cannot pull" in drawn(site).splitlines()[0]
    letters = Worry(code="dead_letters", level="warning", message="one failed")
    site.asked(raw(overview(0, letters)), [], None)
    assert "nobody is waiting, but something needs a look" in drawn(site).splitlines()[0]


def test_queues_have_their_whole_names_on_a_narrow_screen_and_their_numbers_near() -> None:
    site = SiteNow()
    names = ("converter.checks", "distributor.daint")
    queues = tuple(
        QueueStanding(name=name, waiting=3, consumers=2, oldest_seconds=9) for name in names
    )
    site.asked(raw(overview(0).model_copy(update={"queues": queues})), [], None)
    for width in (40, 160):
        [row] = [line for line in drawn(site, width).splitlines() if ".checks" in line]
        assert row.split()[:3] == ["converter.checks", "3", "2"]
        assert len(row.rstrip()) < 60


def test_markup_and_control_characters_of_strangers_are_text() -> None:
    site = SiteNow()
    message = "[red]no[/red] \x1b]0;owned\x07 <script>"
    site.asked(raw(overview()), [raw(failed(message))], None)
    shown = drawn(site, width=200)
    assert "[red]no[/red]" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize("rows", [10, 24, 50])
def test_a_frame_fits_the_screen(rows: int) -> None:
    site = SiteNow()
    many = [raw(pull_view(State.PULLING, id=f"pull-{number}")) for number in range(200)]
    site.asked(raw(overview(200)), many, None)
    shown = drawn(site, rows=rows).rstrip("\n").splitlines()
    assert len(shown) <= rows
    assert "more" in shown[-1]


def test_the_live_stream_is_followed() -> None:
    site = SiteNow()
    first, second = pull_view(State.PULLING, id="1"), pull_view(State.INIT, id="2")
    site.heard("snapshot", {"items": [raw(first), raw(second)]})
    site.heard("gone", {"id": "2"})
    site.heard("pull", raw(pull_view(State.TRANSFER, id="1")))
    site.heard("overview", raw(overview(1)))
    site.heard("of_a_later_version", {"items": 7})
    [pull] = site.document()["pulls"]
    assert (pull["id"], pull["state"]) == ("1", "TRANSFER")
    site.lost("the gateway is away")
    assert site.now().trouble == "the gateway is away"
    site.heard("overview", raw(overview(1)))
    assert site.now().trouble is None


@pytest.fixture
def served() -> Iterator[tuple[str, Script]]:
    with scripted_gateway() as (url, script):
        script.on("GET /api/v1/overview", says(overview(1)))
        script.on(f"GET /api/v1/queue?limit={PAGE}", says(QueueView(items=(pulling(30, 120),))))
        who = problem(401, "not_authenticated", "who are you?")
        script.on("GET /api/v1/jobs?running=true&limit=100", who)
        yield url, script


def command(url: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    program = "from cli.main import main; main()"
    env = {name: value for name, value in os.environ.items() if not name.startswith("DRAY_")}
    env |= {"DRAY_URL": url, "DRAY_MUNGE_SOCKET": "none", "TERM": "xterm"}
    return [sys.executable, "-c", program, *arguments], env


def test_without_a_terminal_it_shows_how_it_stands_and_ends(served: tuple[str, Script]) -> None:
    words, env = command(served[0], "top")
    ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "1 pull under way" in ran.stdout
    words, env = command(served[0], "top", "--json")
    ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    found = json.loads(ran.stdout)
    assert (found["stages"][1]["pulls"], len(found["pulls"]), found["jobs_running"]) == (1, 1, None)


def test_on_a_terminal_q_ends_it_and_the_screen_is_given_back(served: tuple[str, Script]) -> None:
    url, script = served
    body = b"event: overview\ndata: " + overview(7).model_dump_json().encode() + b"\n\n"
    script.on("GET /api/v1/live", Reply(body, content_type="text/event-stream", held=True))
    ours, theirs = pty.openpty()
    words, env = command(url, "top")
    process = subprocess.Popen(
        words, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    with process:
        try:
            seen = b""
            while b"7 pulls under way" not in seen:
                more = os.read(ours, 65536)
                assert more, seen
                seen += more
            os.write(ours, b"q")
            rest = read_all(ours)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            os.close(ours)
    assert b"\x1b[?1049l" in rest  # the other screen is back
