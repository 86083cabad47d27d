"""The drop-in `shifter`: how its command line, its variables and its files are read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import UsageError
from cli.shifter.image import Asked, asked_for
from cli.shifter.main import Wish, run
from cli.shifter.options import USAGE, Options, parse_options
from cli.shifterimg.conf import Conf
from cli.words import Words


def parsed(*words: str) -> Options:
    found = parse_options(words)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), Options()),
        (("ls", "-l", "-i", "x"), Options(command=("ls", "-l", "-i", "x"))),
        (("--", "-x"), Options(command=("-x",))),
        (("-", "x"), Options(command=("-", "x"))),
        (("-i", "a:1", "ls"), Options(image="a:1", command=("ls",))),
        (("-ia:1", "--image=b:1"), Options(image="b:1")),
        (("--image", "a:1", "--", "ls"), Options(image="a:1", command=("ls",))),
        (("-V", "/a:/b", "--volume=/c:/d;/e:/f"), Options(volumes=("/a:/b", "/c:/d;/e:/f"))),
        (("-e", "A=b=c", "--env=D=", "--env", "E=1"), Options(env=("A=b=c", "D=", "E=1"))),
        (("-m", "mpich", "--mod=gpu,cvmfs"), Options(module="gpu,cvmfs")),
        (("-vE",), Options(verbose=True, clear_env=True)),
        (("-vEmgpu",), Options(verbose=True, clear_env=True, module="gpu")),
        (("--entrypoint", "x"), Options(entrypoint="", command=("x",))),
        (("--entrypoint=/bin/x", "y"), Options(entrypoint="/bin/x", command=("y",))),
        (("--entry=x",), Options(entrypoint="x")),
        (("--ent",), Options(entrypoint="")),
        (("-w", "/x"), Options(workdir="", command=("/x",))),
        (("-w/x",), Options(workdir="/x")),
        (("--workdir=/x", "--work"), Options(workdir="")),
        (("--env-file", "f"), Options(env_file="f")),
        (("--clear",), Options(clear_env=True)),
    ],
)
def test_options_are_read_as_the_original_reads_them(
    words: tuple[str, ...], expected: Options
) -> None:
    assert parsed(*words) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--nonsense",), "no option --nonsense"),
        (("-x",), "no option -x"),
        (("--image",), "--image needs a value"),
        (("-V",), "-V needs a value"),
        (("--clearenv=1",), "takes no value"),
        (("--v",), "--verbose or --volume"),
        (("-e", "A"), "NAME=VALUE"),
        (("-e", "=b"), "NAME=VALUE"),
    ],
)
def test_what_is_wrong_with_them_is_said(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_options(words)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_command_line_is_read_or_refused(words: list[str]) -> None:
    try:
        found = parse_options(words)
    except UsageError:
        return
    if found is not None and found.command:
        assert tuple(words)[-len(found.command) :] == found.command


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("-vh", "-i", "x")])
def test_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    assert capsys.readouterr().out == USAGE


def asked(option: str | None = None, /, **env: str) -> Asked | None:
    return asked_for(option, env, lambda: Conf(("http://x",), "s", default_type="custom"))


@pytest.mark.parametrize(
    ("option", "env", "reference"),
    [
        ("docker:ubuntu:24.04", {}, "ubuntu:24.04"),
        ("docker:alpine", {}, "alpine"),
        ("docker:custom:1", {}, "docker:custom:1"),
        ("custom:mine:1", {}, "custom:mine:1"),
        (f"id:{'a' * 64}", {}, "a" * 64),
        ("mine:1", {}, "custom:mine:1"),
        ("docker:a", {"SHIFTER_IMAGE": "b", "SHIFTER_IMAGETYPE": "docker"}, "a"),
        (None, {"SHIFTER_IMAGE": "b:1", "SHIFTER_IMAGETYPE": "docker"}, "b:1"),
        (None, {"SHIFTER_IMAGE": "b" * 64, "SHIFTER_IMAGEREQUEST": "docker:c:1"}, "c:1"),
        (None, {"SLURM_SPANK_SHIFTER_IMAGE": "b", "SHIFTER_IMAGETYPE": "custom"}, "custom:b"),
        (None, {"SLURM_SPANK_SHIFTER_IMAGEREQUEST": "docker:c"}, "c"),
        (None, {"SHIFTER": "docker:d:1"}, "d:1"),
    ],
)
def test_which_image_is_meant(option: str | None, env: dict[str, str], reference: str) -> None:
    found = asked(option, **env)
    assert found is not None
    assert found.reference == reference


def test_without_a_word_it_is_the_job_s_and_an_empty_one_is_a_mistake() -> None:
    assert asked() is None
    assert asked(None, SHIFTER_IMAGE="x") is None
    for wrong in ("", "docker:"):
        with pytest.raises(UsageError, match="no image's name"):
            asked(wrong)
    by_docker = asked_for("ubuntu", {}, lambda: None)
    assert by_docker is not None
    assert (by_docker.itype, by_docker.request) == ("docker", "ubuntu")


WORDS = Words("solver:1", "a" * 64, env=("A=image",), entrypoint=("tini",), cmd=("sh",))


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (("ls",), ("ls",)),
        (("--entrypoint",), ("tini", "sh")),
        (("--entrypoint", "ls"), ("tini", "ls")),
        (("--entrypoint=/x",), ("/x",)),
        (("--entrypoint=/x", "ls"), ("/x", "ls")),
    ],
)
def test_what_is_run(options: tuple[str, ...], command: tuple[str, ...]) -> None:
    assert Wish(parsed(*options), "", "").command_for(WORDS) == command


def test_nothing_but_shifter_s_own_comes_along_where_it_is_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.environ", {"HOME": "/h", "TMPDIR": "/t", "B": "host"})
    env = Wish(parsed("ls"), "", "docker:solver:1").program(WORDS).env
    assert (env["B"], env["HOME"], "TMPDIR" in env) == ("host", "/h", False)
    cleared = Wish(parsed("-E", "-e", "C=1", "ls"), "D=2\n", "docker:solver:1").program(WORDS).env
    del cleared["PATH"]
    assert cleared == {
        "A": "image",
        "C": "1",
        "D": "2",
        "SHIFTER_IMAGE": "a" * 64,
        "SHIFTER_IMAGEREQUEST": "docker:solver:1",
        "SHIFTER_RUNTIME": "1",
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ls",), "for example: shifter --image=docker:alpine:3"),
        (("-i", "local:relative", "ls"), "whole path of a directory"),
        (("-i", "a", "--env-file", "/nowhere", "ls"), "No such file"),
        (("-i", "a", "-V", "/x:/etc", "ls"), "would hide /etc"),
        (("-i", "a", "-m", "gpu", "ls"), "the modules gpu cannot be had here"),
    ],
)
def test_what_is_not_started_ends_with_1_and_the_reason(
    words: tuple[str, ...],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = {"DRAY_SOCKET": str(tmp_path / "absent.sock"), "DRAY_URL": "http://127.0.0.1:1"}
    monkeypatch.setattr("os.environ", here)
    assert run(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("shifter: ")
    assert told in error
