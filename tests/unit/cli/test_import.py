"""`dray import`: what it asks for, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import follow
from cli.errors import EXIT_FAILED, RefusedError, UsageError
from cli.gateway import Gateway
from cli.imports import ImportWish, import_
from shared.states import State
from tests.support.scripted_gateway import Script, problem, says, scripted_gateway, streams
from tests.support.views import failed, pull_view

ASK = "POST /api/v1/imports"
FOLLOW = "GET /api/v1/pulls/pull-1/events"
Served = tuple[str, Script]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(follow, "LOOK_AGAIN", 0.01)
    with scripted_gateway() as found:
        found[1].on(ASK, says(pull_view(State.INIT), 202))
        yield found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.tar").write_bytes(b"")
    (tmp_path / "root").mkdir()
    return tmp_path


def test_a_relative_path_becomes_absolute_and_options_travel(served: Served, here: Path) -> None:
    url, script = served
    script.on(FOLLOW, streams(pull_view(State.READY)))
    wish = ImportWish(
        "app.tar",
        "tool:1",
        format="docker-archive",
        image="x:1",
        system="cluster",
        force=True,
        uids=(7,),
    )
    assert import_(Gateway(url), wish, wait=True, json=False) == 0
    [(asked, body), *_] = script.asked
    assert asked == ASK
    assert body == {
        "name": "custom:tool:1",
        "path": str(here / "app.tar"),
        "format": "docker-archive",
        "image": "x:1",
        "system": "cluster",
        "force": True,
        "allowed_uids": [7],
    }


def test_an_absolute_path_need_not_be_seen_here(served: Served) -> None:
    url, script = served
    wish = ImportWish("/seen/by/the/converter.tar", "tool", public=True)
    assert import_(Gateway(url), wish, wait=False, json=False) == 0
    body = script.asked[0][1]
    assert (body["path"], body["public"]) == ("/seen/by/the/converter.tar", True)


def test_a_format_may_stand_before_the_file(served: Served, here: Path) -> None:
    url, script = served
    assert import_(Gateway(url), ImportWish("dir:root", "x"), wait=False, json=False) == 0
    (here / "tar:odd").write_bytes(b"")
    assert import_(Gateway(url), ImportWish("tar:odd", "x"), wait=False, json=False) == 0
    asked = [(body["format"], body["path"]) for _, body in script.asked]
    assert asked == [("dir", str(here / "root")), ("auto", str(here / "tar:odd"))]


@pytest.mark.parametrize(
    ("path", "name"),
    [("absent.tar", "tool"), ("app.tar", "../tool"), ("app.tar", "a b"), ("a\nb", "tool")],
)
def test_what_cannot_be_is_refused_here(served: Served, here: Path, path: str, name: str) -> None:
    with pytest.raises(UsageError):
        import_(Gateway(served[0]), ImportWish(path, name), wait=True, json=False)
    assert served[1].asked == []


def test_why_it_failed_is_told(
    served: Served, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(FOLLOW, streams(failed("cannot be read: Permission denied")))
    wish = ImportWish("app.tar", "tool")
    assert import_(Gateway(url), wish, wait=True, json=False) == EXIT_FAILED
    assert "Permission denied" in capsys.readouterr().err
    script.on(ASK, problem(403, "import_not_allowed", "ask the operators"))
    with pytest.raises(RefusedError, match="ask the operators"):
        import_(Gateway(url), wish, wait=True, json=False)


def test_it_is_told_that_a_file_is_read_and_no_registry_is_asked(
    served: Served, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(FOLLOW, streams(pull_view(State.PULLING), pull_view(State.READY)))
    assert import_(Gateway(url), ImportWish("app.tar", "tool"), wait=True, json=False) == 0
    said = capsys.readouterr().out
    assert "PULLING     reading the file" in said
    assert "registry" not in said


def test_json_is_the_gateways_last_word(
    served: Served, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on(ASK, says(pull_view(State.READY)))
    assert import_(Gateway(url), ImportWish("app.tar", "tool"), wait=True, json=True) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "READY"


def test_ctrl_c_says_how_to_join_it_again(served: Served, here: Path) -> None:
    url, script = served
    script.on(FOLLOW, streams(pull_view(State.PULLING), held=True))
    words = ["import", "--url", url, "--format", "oci-archive", "app.tar", "tool:1"]
    command = [sys.executable, "-c", "from cli.main import main; main()", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "NO_COLOR": "1"}
    process = subprocess.Popen(
        command,
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    end = time.monotonic() + 20
    while len(script.asked) < 2:  # until it follows
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    again = f"dray import --url {url} --format oci-archive {here}/app.tar tool:1"
    assert f"The import goes on without us. Rejoin it with: {again}" in said
