"""What `dray run` makes of the image's words and the user's, and how it asks the agent."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cli.agent import Agent
from cli.answers import Image, read_image
from cli.enter import DEFAULT_PATH
from cli.errors import RefusedError, UnreachableError, UsageError
from cli.main import app
from cli.run import (
    Wish,
    command_for,
    environment_for,
    image_of_job,
    run_in_image,
    workdir_for,
)
from shared.api import MountRequest, MountView
from tests.support.scripted_gateway import Reply, problem, says, scripted_agent, scripted_gateway
from tests.support.squashfs import is_root
from tests.support.users import AS_NOBODY, ordinary_environment, ordinary_python
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


def pinned(*letters: str) -> str:
    return ";".join(f"{letter * 64},{'d' * 64},4096" for letter in letters)


def test_a_job_s_image_is_the_one_whose_id_it_carries_or_its_first() -> None:
    image, name = image_of_job({"DRAY_IMAGES": pinned("a", "b"), "DRAY_IMAGE": "alpine:3"})
    assert (image.image_id, image.size, name) == ("a" * 64, 4096, "alpine:3")
    job = {"DRAY_IMAGES": pinned("a", "b"), "DRAY_IMAGE_ID": "b" * 64}
    assert image_of_job(job)[0].image_id == "b" * 64


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({}, "no image is named"),
        ({"DRAY_IMAGES": ""}, "no image is named"),
        ({"DRAY_IMAGES": ";"}, "no image is named"),
        ({"DRAY_IMAGES": "../x,y,z"}, "not id,digest,size"),
        ({"DRAY_IMAGES": pinned("a"), "DRAY_IMAGE_ID": "c" * 64}, "none of the images"),
    ],
)
def test_what_is_wrong_with_a_job_s_variables_is_said(job: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        image_of_job(job)


@pytest.mark.parametrize(
    ("words", "reference", "command"),
    [
        ((), None, ()),
        (("--",), None, ()),
        (("--", "hostname"), None, ("hostname",)),
        (("-e", "A=b", "--", "ls", "-l", "--", "x"), None, ("ls", "-l", "--", "x")),
        (("alpine",), "alpine", ()),
        (("alpine", "--", "ls", "-l"), "alpine", ("ls", "-l")),
        (("-e", "A=b", "alpine", "ls", "--", "x"), "alpine", ("ls", "--", "x")),
    ],
)
def test_two_dashes_instead_of_an_image_mean_the_job_s(
    words: tuple[str, ...],
    reference: str | None,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wishes: list[Wish] = []

    def ran(_url: str, _socket: Path | None, wish: Wish, _wait: float) -> NoReturn:
        wishes.append(wish)
        raise UsageError("seen")

    monkeypatch.setattr("cli.run.run_in_image", ran)
    with pytest.raises(SystemExit):
        app(["run", *words])
    assert [(wish.reference, wish.command) for wish in wishes] == [(reference, command)]


def test_an_image_without_a_command_needs_one() -> None:
    with pytest.raises(UsageError, match="dray run alpine:3 /bin/sh"):
        command_for(_wish(), _image(cmd=()))


def test_the_caller_s_few_variables_then_the_image_s_then_the_options() -> None:
    here = {
        "FROM_HERE": "1",
        "SECRET": "not asked for",
        "LD_PRELOAD": "/home/u/x.so",
        "PATH": "/home/u/bin",
        "HOME": "/home/u",
        "USER": "u",
        "TERM": "xterm",
        "LANG": "en",
        "LC_ALL": "en",
        "TZ": "CET",
    }
    options = ("LANG=de", "FROM_HERE", "MISSING", "EMPTY=")
    image = _image(env=("LANG=C", "LC_ALL=C", "A=x=y", "=bad"))
    assert environment_for(_wish(options=options), image, here) == {
        "HOME": "/home/u",
        "USER": "u",
        "TERM": "xterm",
        "TZ": "CET",
        "LC_ALL": "C",
        "A": "x=y",
        "PATH": DEFAULT_PATH,
        "LANG": "de",
        "FROM_HERE": "1",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        ((), (), DEFAULT_PATH),
        (("PATH=",), (), DEFAULT_PATH),
        (("PATH=/opt",), (), "/opt"),
        (("PATH=/opt",), ("PATH=/x",), "/x"),
        ((), ("PATH",), "/here"),
    ],
)
def test_there_is_always_a_path_and_never_the_caller_s_unless_asked_for(
    image: tuple[str, ...], options: tuple[str, ...], expected: str
) -> None:
    env = environment_for(_wish(options=options), _image(env=image), {"PATH": "/here"})
    assert env["PATH"] == expected


@pytest.mark.parametrize("option", ["=1", "", "A=\0"])
def test_an_option_that_is_no_variable_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        environment_for(_wish(options=(option,)), _image(), {})


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
        assert Agent(path).mount("run-1", _image(), 5.0) == "/mnt/a"
        asked = MountRequest.model_validate(script.asked[0][1])
        assert (asked.job_id, asked.wait, asked.size) == ("run-1", 5.0, 3_456_789)
        assert asked.until_caller_exits


def test_the_agent_s_refusal_is_told_in_its_words(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with scripted_agent(str(path)) as script:
        script.on("POST /v1/mounts", problem(409, "mount_failed", "zstd is not in this kernel"))
        with pytest.raises(RefusedError, match="zstd is not in this kernel"):
            Agent(path).mount("run-1", _image(), 5.0)


def test_without_an_agent_the_message_says_who_would_mount(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"(?s)no-agent\.sock.*dray up.*DRAY_SOCKET"):
        Agent(tmp_path / "no-agent.sock").status()


def test_the_usual_sockets_are_tried_in_turn_until_one_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale, closed = tmp_path / "stale.sock", tmp_path / ("x" * 200) / "closed.sock"
    with socket.socket(socket.AF_UNIX) as forgotten:
        forgotten.bind(str(stale))
    unusual = (tmp_path / "absent.sock", stale, stale / "no-directory", closed)
    monkeypatch.setattr("cli.defaults.SITE_SOCKETS", unusual)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "dray/agent").mkdir(parents=True)
    with scripted_agent(str(tmp_path / "dray/agent/agent.sock")) as script:
        script.on("GET /v1/status", Reply(b'{"system": "daint"}'))
        agent = Agent(None)
        assert agent.system() == "daint"
        monkeypatch.undo()
        assert agent.socket(5.0) == tmp_path / "dray/agent/agent.sock"
        assert len(script.asked) == 1


def test_where_no_usual_socket_answers_each_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as forgotten:
        forgotten.bind(str(stale))
    monkeypatch.setattr("cli.defaults.SITE_SOCKETS", (stale,))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    reasons = r"stale\.sock \(Connection refused\), .*/dray/agent/agent\.sock \(No such file"
    with pytest.raises(UnreachableError, match=reasons):
        Agent(None).status()


ASK_ANY = """
import sys
from pathlib import Path
from cli import defaults
from cli.agent import Agent
from cli.errors import UnreachableError
defaults.SITE_SOCKETS = tuple(map(Path, sys.argv[1:]))
try:
    print(Agent(None).socket(5.0))
except UnreachableError as exc:
    print(exc)
"""


def test_an_agent_that_serves_others_is_passed_over(tmp_path: Path) -> None:
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    private, own = tmp_path / "private.sock", tmp_path / "own.sock"
    with socket.socket(socket.AF_UNIX) as others, socket.socket(socket.AF_UNIX) as ours:
        for listening, path in ((others, private), (ours, own)):
            listening.bind(str(path))
            listening.listen()
        private.chmod(0)
        own.chmod(0o666)

        def ask(*sockets: Path) -> str:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                [ordinary_python() if is_root() else sys.executable, "-c", ASK_ANY, *sockets],
                env=ordinary_environment() | {"XDG_DATA_HOME": str(tmp_path)},
                stdout=subprocess.PIPE, text=True, check=True, timeout=60,
                **(AS_NOBODY if is_root() else {}),
            )  # fmt: skip
            return done.stdout

        assert ask(private, own) == f"{own}\n"
        assert f"{private} (you may not talk to it)" in ask(private)


@pytest.mark.parametrize(("wanted", "asked"), [(None, "eiger"), ("daint", "daint")])
def test_without_a_system_that_of_the_node_is_meant(
    tmp_path: Path, wanted: str | None, asked: str
) -> None:
    path = tmp_path / "agent.sock"
    with scripted_agent(str(path)) as agent, scripted_gateway() as (url, gateway):
        agent.on("GET /v1/status", Reply(b'{"system": "eiger"}'))
        gateway.on(
            f"GET /api/v1/images/{asked}/docker/alpine%3A3", problem(404, "not_found", "not here")
        )
        with pytest.raises(RefusedError, match="not here"):
            run_in_image(url, path, _wish(system=wanted), 5.0)
