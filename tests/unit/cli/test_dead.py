"""`dray queue dead`: what is shown, sent again and discarded, and how much is left."""

import json

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from shared.api import DeadLettersView, DeadLetterView, ReplayView
from tests.support.scripted_gateway import Reply, Script, says, scripted_gateway
from tests.support.views import NOW

LIST = "GET /api/v1/admin/dead-letters"
REPLAY = "POST /api/v1/admin/dead-letters/replay"
LETTER = DeadLetterView(
    id="l/1", queue="gateway.events", reason="rejected", deliveries=4, died_at=NOW, body="{}"
)


def dead(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["queue", "--url", url, "dead", *arguments])


def went(replayed: int, left: int) -> Reply:
    return says(ReplayView(replayed=replayed, left=left))


def asked(script: Script, request: str) -> list[object]:
    return [body for what, body in script.asked if what == request]


def test_letters_are_shown_with_how_many_there_are() -> None:
    with scripted_gateway() as (url, script):
        script.on(LIST, says(DeadLettersView(items=(LETTER,), total=5012)))
        shown = dead(url)
        assert "gateway.events      4" in shown.stdout
        assert "the first 1 of 5012" in shown.stdout
        assert "--replay-all" in shown.stdout
        assert json.loads(dead(url, "--json").stdout)["total"] == 5012
        assert dead(url, "-q").stdout == "l/1\n"
        script.on(LIST, says(DeadLettersView(items=(), total=0)))
        assert dead(url).stdout == "No event has failed for good.\n"


def test_one_is_replayed_or_discarded() -> None:
    with scripted_gateway() as (url, script):
        script.on("POST /api/v1/admin/dead-letters/l%2F1/replay", Reply(status=204))
        script.on("DELETE /api/v1/admin/dead-letters/l%2F1", Reply(status=204))
        replayed, discarded = dead(url, "--replay", "l/1"), dead(url, "--discard", "l/1")
    assert (replayed.exit_code, replayed.stdout) == (0, "Event l/1 is in its queue again.\n")
    assert (discarded.exit_code, discarded.stdout) == (
        0,
        "Event l/1 is gone for good: nobody will handle it.\n",
    )


def test_all_of_a_queue_take_as_many_requests_as_they_need() -> None:
    with scripted_gateway() as (url, script):
        script.on(LIST, says(DeadLettersView(items=(LETTER,), total=10_500)))
        script.on(REPLAY, went(9000, 1500), went(1498, 2), went(0, 2))
        shown = dead(url, "--replay-all", "--queue", "converter.pulls")
        assert asked(script, REPLAY) == [{"queue": "converter.pulls"}] * 3
    assert shown.exit_code == 0
    assert shown.stdout == (
        "10,498 events are in their queues again.\n"
        "2 dead letters left: see them with dray queue dead\n"
    )


def test_what_dies_again_at_once_is_not_sent_for_ever() -> None:
    with scripted_gateway() as (url, script):
        there = (LETTER, LETTER.model_copy(update={"queue": "converter.pulls"}))
        script.on(LIST, says(DeadLettersView(items=there, total=2)))
        script.on(REPLAY, went(2, 2))  # both are dead again each time, for ever
        shown = dead(url, "--replay-all", "--json")
        assert asked(script, REPLAY) == [{}]
        assert json.loads(shown.stdout) == {"replayed": 2, "left": 2}
        script.on(REPLAY, went(1, 2))
        shown = dead(url, "--replay-all", "--json", "--queue", "converter.pulls")
        assert json.loads(shown.stdout) == {"replayed": 1, "left": 2}


def test_nothing_to_replay_is_said() -> None:
    with scripted_gateway() as (url, script):
        script.on(LIST, says(DeadLettersView(items=(), total=0)))
        script.on(REPLAY, went(0, 0))
        assert dead(url, "--replay-all").stdout == "There was nothing to send again.\n"


@pytest.mark.parametrize(
    "words",
    [("--replay", "a", "--discard", "a"), ("--replay-all", "--replay", "a"), ("--queue", "q")],
)
def test_what_contradicts_itself_asks_nobody(words: tuple[str, ...]) -> None:
    with scripted_gateway() as (url, script):
        shown = dead(url, *words)
        assert shown.exit_code != 0
        assert script.asked == []


def test_the_help_teaches() -> None:
    shown = CliRunner().invoke(app, ["queue", "dead", "--help"]).stdout
    for word in ("--replay-all", "--queue", "--discard", "dead letter again", "not done twice"):
        assert word in " ".join(shown.split())
