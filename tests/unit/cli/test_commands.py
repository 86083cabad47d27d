"""The `dray` command as a user calls it: output, exit codes, and how little it loads."""

import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cli.completion import places
from cli.main import app
from cli.sections import SECTIONS
from shared.api import ImagePage, NodesView, NodeView, QueueView
from shared.events.nodes import NodeCache, NodeCapacity
from shared.states import State
from tests.support.scripted_gateway import Reply, Script, problem, says, scripted_gateway
from tests.support.views import (
    NOW,
    REFERENCE,
    again,
    failed,
    image_detail,
    image_view,
    pull_view,
    pulling,
)

Served = tuple[str, Script]
CAPACITY = NodeCapacity(
    version="0.1",
    cpus=64,
    memory_bytes=1 << 38,
    booted_at=NOW,
    cache=NodeCache(policy="copy", max_bytes=64 * 10**9, used_bytes=10**9, images=3),
)


@pytest.fixture
def served() -> Iterator[Served]:
    with scripted_gateway() as found:
        yield found


def _dray(url: str, *arguments: str, then: str = "") -> subprocess.CompletedProcess[str]:
    program = f"from cli.main import main\ntry:\n    main()\nfinally:\n    {then or 'pass'}"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"DRAY_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("words", [("--wait",), ("--all-nodes",), ("", "--wait")])
def test_what_is_meant_for_one_job_says_so_where_none_is_named(
    served: Served, words: tuple[str, ...]
) -> None:
    """A script's empty $JOB must not look like a job whose nodes are all ready."""
    url, script = served
    done = _dray(url, "jobs", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "name the job" in done.stderr
    assert script.asked == []


def test_images_are_listed_for_people_and_for_programs(served: Served) -> None:
    url, script = served
    script.on("GET /api/v1/images?limit=500", says(ImagePage(items=(image_view(),), next=None)))
    listed = _dray(url, "images").stdout.splitlines()
    assert listed[1].split()[:5] == [REFERENCE, "local", "3.5", "MB", "1"]
    assert json.loads(_dray(url, "images", "--json").stdout)["items"][0]["reference"] == REFERENCE


def test_a_lookup_tells_what_the_image_runs_and_a_miss_is_exit_code_1(served: Served) -> None:
    url, script = served
    script.on("GET /api/v1/images/daint/docker/alpine%3A3", says(image_view()))
    found = _dray(url, "lookup", "alpine:3", "--system", "daint")
    assert found.returncode == 0
    assert "cmd         /bin/sh" in found.stdout
    script.on("GET /api/v1/images/_/docker/x", problem(404, "not_found", "pull it: dray pull x"))
    missed = _dray(url, "lookup", "x")
    assert (missed.returncode, missed.stderr) == (1, "dray: pull it: dray pull x [not_found]\n")


def test_whose_an_image_is_and_how_long_it_stays(served: Served) -> None:
    url, script = served
    me = pwd.getpwuid(os.geteuid()).pw_name
    mine = image_view(private=True, owner=os.geteuid(), expires_at=NOW, last_used=NOW, id="c" * 64)
    script.on("GET /api/v1/images?limit=500", says(ImagePage(items=(mine,), next=None)))
    heading, row = _dray(url, "images").stdout.splitlines()
    assert heading.split()[-3:] == ["ACCESS", "OWNER", "READY"]
    assert row.split("private")[1].split()[0] == me
    script.on("GET /api/v1/images/_/docker/x", says(mine))
    told = _dray(url, "lookup", "x").stdout
    assert f"owner       {me}\n" in told
    assert "pinned      no\n" in told
    assert "expires     2026-05-01 12:00 UTC unless" in told
    assert "last used   2026-05-01 12:00:00 UTC" in told
    script.on("GET /api/v1/images/_/docker/x", says(mine.model_copy(update={"pinned": True})))
    assert "expires     not by itself\n" in _dray(url, "lookup", "x").stdout


@pytest.mark.parametrize("command", ["lookup", "rm", "pin"])
def test_the_beginning_of_an_id_is_told_from_a_reference(served: Served, command: str) -> None:
    url, script = served
    method = {"lookup": "GET", "rm": "DELETE", "pin": "PUT"}[command]
    for name, hinted in (("c840c9ebf103", True), ("alpine", False)):
        path = f"/api/v1/images/_/docker/{name}{'/pin' if command == 'pin' else ''}"
        script.on(f"{method} {path}", problem(404, "not_found", "it is not READY"))
        refused = _dray(url, command, name)
        assert refused.returncode == 1
        assert ("give the reference, or the whole id" in refused.stderr) is hinted


def test_a_token_for_too_long_is_told_in_the_words_of_the_command(served: Served) -> None:
    url, script = served
    said = "seconds: a token may live for 86400 s (24 h) here at most"
    script.on("POST /api/v1/tokens", problem(400, "invalid_input", said))
    refused = _dray(url, "token", "--expires", "30d")
    assert refused.returncode == 2
    assert "--expires 30d: a token may live for 86400 s (24 h) here at most" in refused.stderr


def test_the_queue_shows_bytes_and_reasons(served: Served) -> None:
    url, script = served
    items = (
        pulling(1_000_000, 4_000_000),
        failed("no such tag", id="pull-2"),
        again("no route"),
    )
    script.on("GET /api/v1/queue?system=daint&limit=500", says(QueueView(items=items)))
    shown = _dray(url, "queue", "--system", "daint").stdout
    assert "PULLING  1.0 MB of 4.0 MB" in shown
    assert f"{REFERENCE}: no such tag" in shown
    assert f"{REFERENCE}: try 2 in a moment: no route" in shown


def test_a_hint_names_the_system_that_was_asked_about(served: Served) -> None:
    url, script = served
    script.on("GET /api/v1/images?system=daint&limit=500", says(ImagePage(items=(), next=None)))
    hint = _dray(url, "images", "-s", "daint").stdout
    assert hint == "No image is READY yet: dray pull --system daint alpine:3\n"


def test_nodes_are_shown_with_how_they_mount(served: Served) -> None:
    url, script = served
    node = NodeView(
        node="nid1",
        system="local",
        kernel="6.1",
        mounter="loop",
        codecs=("gzip", "zstd"),
        mounts=2,
        seen_at=NOW,
    )
    script.on("GET /api/v1/nodes?limit=500", says(NodesView(items=(node,), next="x")))
    lost = node.model_copy(update={"node": "nid2", "lost": True, "capacity": CAPACITY})
    script.on("GET /api/v1/nodes?after=x&limit=500", says(NodesView(items=(lost,))))
    rows = [line.split() for line in _dray(url, "nodes", "--no-header").stdout.splitlines()]
    assert rows[0][:3] == ["nid1", "local", "ALIVE"]
    assert rows[0][-5:] == ["loop", "gzip,", "zstd", "2", "6.1"]
    assert rows[1][:3] == ["nid2", "local", "LOST"]
    assert rows[1][-7:] == ["1.0", "GB", "of", "64.0", "GB", "6.1", "0.1"]
    assert _dray(url, "nodes", "-q").stdout == "nid1\nnid2\n"
    found = json.loads(_dray(url, "nodes", "--json").stdout)["items"]
    assert [each["node"] for each in found] == ["nid1", "nid2"]
    asked = "GET /api/v1/nodes?state=lost&nodes=nid%5B1-9%5D&limit=500"
    script.on(asked, says(NodesView(items=())))
    assert _dray(url, "nodes", "nid[1-9]", "--lost").stdout == "There is no such node.\n"


def test_an_answer_of_another_version_is_named(served: Served) -> None:
    url, script = served
    script.on("GET /api/v1/nodes?limit=500", Reply(b'{"items": [{"node": "n"}]}'))
    shown = _dray(url, "nodes")
    assert shown.returncode == 3
    assert "another version" in shown.stderr


def test_without_a_gateway_the_exit_code_is_3_and_the_message_says_what_to_do() -> None:
    shown = _dray("http://127.0.0.1:1", "images")
    assert shown.returncode == 3
    assert "dray up" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    "arguments", [("pull",), ("pull", ""), ("queue", "--nonsense"), ("--url",)]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert _dray("http://127.0.0.1:1", *arguments).returncode == 2


COMMANDS = [tuple(place.path.split()[1:]) for place in places(app)]


ALONE = {("store", "status"), ("store", "collect"), ("store", "scrub"), ("completion",)}
"""Their group, or no line of its own, has the example."""


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - ALONE))
def test_help_teaches_with_an_example(command: tuple[str, ...]) -> None:
    assert f"\n  {' '.join(('dray', *command))}" in _dray("", *command, "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_whole_and_names_values_in_capitals(command: tuple[str, ...]) -> None:
    shown = _dray("", *command, "--help").stdout
    assert shown
    for several in ("[ARGS]...", "CMD...", "REF..."):
        shown = shown.replace(several, "")
    assert "..." not in shown
    assert not re.search(r"--?\w+ (<|[a-z]+  )", shown), shown


def test_help_lists_every_command_once() -> None:
    listed = [name for _, names in SECTIONS for name in names]
    assert sorted(listed) == sorted(command[0] for command in COMMANDS if len(command) == 1)
    shown = _dray("", "--help").stdout
    assert all(len(re.findall(rf"(?m)^  {name} ", shown)) == 1 for name in listed)


def test_the_version_is_told() -> None:
    assert _dray("", "--version").stdout.startswith("dray 0.")


@pytest.mark.parametrize("command", [("queue",), ("inspect", "alpine:3")])
def test_a_status_command_loads_nothing_heavy(served: Served, command: tuple[str, ...]) -> None:
    url, script = served
    script.on("GET /api/v1/queue?limit=500", says(QueueView(items=(pull_view(State.INIT),))))
    script.on("GET /api/v1/images/_/docker/alpine%3A3?sharing=true", says(image_detail()))
    shown = _dray(url, *command, then="import sys; print(*sys.modules, file=sys.stderr)")
    loaded = {name.partition(".")[0] for name in shown.stderr.split()}
    assert REFERENCE in shown.stdout
    assert loaded.isdisjoint({"aiohttp", "asyncio", "pydantic", "rich", "structlog", "yaml"})
