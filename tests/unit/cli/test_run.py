"""What `dray run` makes of the image's words and the user's, and how it asks the agent."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.agent import Agent
from cli.answers import Image, read_image
from cli.errors import RefusedError, UnreachableError, UsageError
from cli.run import USUAL_PATH, Wish, command_for, environment_for, workdir_for
from shared.api import MountRequest, MountView
from tests.support.scripted_gateway import Reply, problem, says, scripted_agent
from tests.support.views import image_view


def _image(**changes: Any) -> Image:
    return read_image(json.loads(image_view(**changes).model_dump_json()))


def _wish(*command: str, **changes: Any) -> Wish:
    values: dict[str, Any] = {
        "reference": "alpine:3",
        "system": None,
        "command": command,
        "options": (),
        "workdir": None,
        "entrypoint": None,
    }
    return Wish(**(values | changes))


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "wish", "expected"),
    [
        ((), ("sh",), _wish(), ("sh",)),
        ((), ("sh",), _wish("ls", "-l"), ("ls", "-l")),
        (("tini", "--"), ("sh",), _wish(), ("tini", "--", "sh")),
        (("tini", "--"), ("sh",), _wish("ls"), ("tini", "--", "ls")),
        (("tini",), ("sh",), _wish(entrypoint="env"), ("env",)),
        (("tini",), ("sh",), _wish("-i", entrypoint="env"), ("env", "-i")),
        (("tini",), ("sh",), _wish("ls", entrypoint=""), ("ls",)),
    ],
)
def test_the_command_follows_docker_s_rule(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], wish: Wish, expected: tuple[str, ...]
) -> None:
    assert command_for(wish, _image(entrypoint=entrypoint, cmd=cmd)) == expected


def test_an_image_without_a_command_needs_one() -> None:
    with pytest.raises(UsageError, match="dray run alpine:3 /bin/sh"):
        command_for(_wish(), _image(cmd=()))


def test_options_win_over_the_image_and_only_named_variables_come_from_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FROM_HERE", "1")
    monkeypatch.setenv("SECRET", "not asked for")
    monkeypatch.delenv("MISSING", raising=False)
    options = ("LANG=de", "FROM_HERE", "MISSING", "EMPTY=")
    env = environment_for(_wish(options=options), _image(env=("LANG=C", "A=x=y", "=bad")))
    assert env == {"PATH": USUAL_PATH, "LANG": "de", "A": "x=y", "FROM_HERE": "1", "EMPTY": ""}


@pytest.mark.parametrize("option", ["=1", "", "A=\0"])
def test_an_option_that_is_no_variable_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        environment_for(_wish(options=(option,)), _image())


def test_the_working_directory_is_the_user_s_or_the_image_s_or_left_open() -> None:
    assert workdir_for(_wish(workdir="/scratch"), _image()) == "/scratch"
    assert workdir_for(_wish(), _image()) == "/srv"
    assert workdir_for(_wish(), _image(workdir="")) is None
    with pytest.raises(UsageError):
        workdir_for(_wish(workdir="scratch"), _image())


def test_the_agent_is_asked_in_its_own_words(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    view = MountView(image_id="a" * 64, path="/mnt/a", how="loop", seconds=0.1)
    with scripted_agent(str(path)) as script:
        script.on("POST /v1/mounts", says(view))
        script.on("DELETE /v1/jobs/run-1", Reply(status=204))
        agent = Agent(path)
        assert agent.mount("run-1", _image(), 5.0) == "/mnt/a"
        agent.release("run-1")
        asked = MountRequest.model_validate(script.asked[0][1])
        assert (asked.job_id, asked.wait, asked.size) == ("run-1", 5.0, 3_456_789)


def test_the_agent_s_refusal_is_told_in_its_words(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with scripted_agent(str(path)) as script:
        script.on("POST /v1/mounts", problem(409, "mount_failed", "zstd is not in this kernel"))
        with pytest.raises(RefusedError, match="zstd is not in this kernel"):
            Agent(path).mount("run-1", _image(), 5.0)


def test_without_an_agent_the_message_says_who_would_mount(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"(?s)no-agent\.sock.*dray up.*DRAY_SOCKET"):
        Agent(tmp_path / "no-agent.sock").release("run-1")


def test_the_usual_sockets_are_tried_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.agent.SITE_SOCKETS", (tmp_path / "absent.sock",))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "dray/agent").mkdir(parents=True)
    with scripted_agent(str(tmp_path / "dray/agent/agent.sock")) as script:
        script.on("DELETE /v1/jobs/run-1", Reply(status=204))
        Agent(None).release("run-1")
        assert len(script.asked) == 1
