"""How the agent of a node is found and asked."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.agent import Agent
from cli.answers import read_image
from cli.errors import RefusedError, UnreachableError
from shared.api import MountRequest, MountView
from tests.support.scripted_gateway import Reply, problem, says, scripted_agent
from tests.support.squashfs import is_root
from tests.support.users import AS_NOBODY, ordinary_environment, ordinary_python
from tests.support.views import image_view


def test_the_agent_is_asked_in_its_own_words(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    view = MountView(image_id="a" * 64, path="/mnt/a", how="loop", seconds=0.1)
    with scripted_agent(str(path)) as script:
        script.on("POST /v1/mounts", says(view))
        assert (
            Agent(path).mount("run-1", read_image(json.loads(image_view().model_dump_json())), 5.0)
            == "/mnt/a"
        )
        asked = MountRequest.model_validate(script.asked[0][1])
        assert (asked.job_id, asked.wait, asked.size) == ("run-1", 5.0, 3_456_789)
        assert asked.until_caller_exits


def test_the_agent_s_refusal_is_told_in_its_words(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with scripted_agent(str(path)) as script:
        script.on("POST /v1/mounts", problem(409, "mount_failed", "zstd is not in this kernel"))
        with pytest.raises(RefusedError, match="zstd is not in this kernel"):
            Agent(path).mount("run-1", read_image(json.loads(image_view().model_dump_json())), 5.0)


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
