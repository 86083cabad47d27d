"""What `dray run` makes of the image's words and the user's, and of a job's variables."""

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cli.answers import Image, read_image
from cli.errors import RefusedError, UsageError
from cli.into_image import NeedsAgentError, Target, run_in_image
from cli.main import app
from cli.of_job import (
    Wants,
    enterable,
    image_named,
    images,
    insides,
    job_id,
    pinned_inside,
    the_image,
)
from cli.run import Wish, read_env_file, wants
from cli.words import NoWordsError, Words, of_inside, of_program
from shared.inside.environment import DEFAULT_PATH, Changes, VariableRefusedError
from shared.inside.manifest import Manifest
from shared.inside.volumes import Volume
from tests.support.scripted_gateway import Reply, problem, scripted_agent, scripted_gateway
from tests.support.views import image_view


def _image(**changes: Any) -> Image:
    return read_image(json.loads(image_view(**changes).model_dump_json()))


def _words(**changes: Any) -> Words:
    return of_program(_image(**changes))


def _wish(*command: str, **changes: Any) -> Wish:
    values: dict[str, Any] = {
        "name": "alpine:3",
        "command": command,
        "options": (),
        "file": "",
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
    assert wish.command_for(_words(entrypoint=entrypoint, cmd=cmd)) == expected


def pinned(*letters: str) -> str:
    return ";".join(f"{letter * 64},{'d' * 64},4096" for letter in letters)


def test_a_job_s_image_is_the_one_whose_id_it_carries_or_its_first() -> None:
    image = the_image({"DRAY_IMAGES": pinned("a", "b"), "DRAY_IMAGE": "alpine:3, x"})
    assert (image.image_id, image.size, image.name) == ("a" * 64, 4096, "alpine:3")
    job = {"DRAY_IMAGES": pinned("a", "b"), "DRAY_IMAGE_ID": "b" * 64}
    assert the_image(job).image_id == "b" * 64


@pytest.mark.parametrize(
    ("reference", "letter"),
    [
        ("alpine", "a"),
        ("docker:alpine:latest", "a"),
        ("docker.io/library/alpine", "a"),
        ("custom:mine:1", "b"),
        ("id:" + "c" * 64, "c"),
        ("c" * 64, "c"),
        ("b" * 64, "b"),
        ("alpine:3", None),
        ("mine:1", None),
        ("not a reference", None),
    ],
)
def test_a_job_s_images_are_known_by_every_way_to_write_them(
    reference: str, letter: str | None
) -> None:
    named = f"alpine;custom:mine:1,id:{'c' * 64}"
    job = {"DRAY_IMAGES": pinned("a", "b", "c"), "DRAY_IMAGE": named}
    found = image_named(reference, job)
    assert (found.image_id if found else None) == (letter * 64 if letter else None)


def test_where_not_all_were_there_at_submission_none_is_known_by_its_name() -> None:
    job = {"DRAY_IMAGES": pinned("a"), "DRAY_IMAGE": "alpine,x"}
    assert image_named("alpine", job) is None
    assert [image.name for image in images(job)] == ["a" * 64]


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
        the_image(job)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "DRAY_JOB_ID": "8"}, "7"),
        ({"SLURM_JOB_ID": "", "DRAY_JOB_ID": "f58[1]+0.b:x_-"}, "f58[1]+0.b:x_-"),
        ({"SLURM_JOB_ID": "../7"}, None),
        ({"SLURM_JOB_ID": "7@x"}, None),
    ],
)
def test_a_job_is_known_by_its_scheduler_s_number(env: dict[str, str], expected: str) -> None:
    assert job_id(env) == expected


def test_an_inside_is_beside_the_agent_s_socket_if_there_is_a_way_in(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    assert insides(socket) is None
    place = tmp_path / "insides" / "7.abc"
    place.mkdir(parents=True)
    assert insides(socket) == place.parent
    assert pinned_inside(place.parent, "7", "a" * 64) is None
    alias = place.parent / f"7@{'a' * 64}"
    alias.symlink_to(place.name)
    assert not enterable(alias)
    for name in ("mnt", "user"):
        (place / name).touch()
    assert pinned_inside(place.parent, "7", "a" * 64) == alias


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
    asked: list[tuple[Target, Wish]] = []

    def ran(target: Target, wish: Wish) -> NoReturn:
        asked.append((target, wish))
        raise UsageError("seen")

    monkeypatch.setattr("cli.into_image.run_in_image", ran)
    with pytest.raises(SystemExit):
        app(["run", *words])
    assert [(target.reference, wish.command) for target, wish in asked] == [(reference, command)]


def test_an_image_without_a_command_needs_one() -> None:
    with pytest.raises(UsageError, match="dray run alpine:3 /bin/sh"):
        _wish().command_for(_words(cmd=()))


def _environment(
    monkeypatch: pytest.MonkeyPatch, here: dict[str, str], words: Words, **changes: Any
) -> dict[str, str]:
    monkeypatch.setattr("os.environ", here)
    return _wish("true", **changes).program(words).env


def test_the_caller_s_few_variables_then_the_image_s_then_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
    words = _words(env=("LANG=C", "LC_ALL=C", "A=x=y", "=bad"))
    assert _environment(monkeypatch, here, words, options=options) == {
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
    image: tuple[str, ...],
    options: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = _environment(monkeypatch, {"PATH": "/here"}, _words(env=image), options=options)
    assert env["PATH"] == expected


@pytest.mark.parametrize("option", ["=1", "", "A=\0"])
def test_an_option_that_is_no_variable_is_refused(option: str) -> None:
    with pytest.raises(VariableRefusedError, match="NAME=VALUE"):
        _wish("true", options=(option,)).program(_words())


def test_the_inside_of_a_job_says_what_the_image_and_then_the_modules_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Changes(set={"B": "module"}, prepend={"PATH": "/module"})
    manifest = Manifest(
        env=("A=image", "B=image", "PATH=/image", "odd"), changes=(changes,), cmd=("sh",)
    )
    for name, content in manifest.files().items():
        (tmp_path / name).write_bytes(content)
    words = of_inside(tmp_path, "alpine:3", "a" * 64)
    assert (words.env, words.cmd) == (("A=image", "B=image", "PATH=/image"), ("sh",))
    env = _environment(
        monkeypatch, {}, words, options=("A=option", "B=option"), file="A=file\nC=file\n"
    )
    assert env == {"A": "option", "B": "module", "C": "file", "PATH": "/module:/image"}
    (tmp_path / "cmd").unlink()
    with pytest.raises(NoWordsError, match="has the job ended"):
        of_inside(tmp_path, "alpine:3", "a" * 64)


def test_an_environment_file_is_read_or_told_why_not(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"A=\xff\n")
    assert read_env_file(tmp_path / "env") == "A=\udcff\n"
    (tmp_path / "large").write_bytes(b"#" * ((1 << 20) + 1))
    for name, told in (("absent", "No such file"), (".", "directory"), ("large", "larger")):
        with pytest.raises(UsageError, match=told):
            read_env_file(tmp_path / name)


def test_volumes_come_besides_the_job_s_and_modules_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = {"DRAY_VOLUMES": "/a:/x; /b:/y:ro", "DRAY_MODULES": "mpich,gpu", "MINE": "/m"}
    monkeypatch.setattr("os.environ", job)
    a, b = Volume("/a", "/x"), Volume("/b", "/y", read_only=True)
    assert wants([], []) == Wants((a, b), ("mpich", "gpu"))
    assert wants(["$MINE:/y;/c:/z"], ["none", "cvmfs,cvmfs"]) == Wants(
        (a, Volume("/m", "/y"), Volume("/c", "/z")), ("none", "cvmfs")
    )


def test_the_working_directory_is_the_user_s_or_the_image_s_or_left_open() -> None:
    assert _wish("x", workdir="/scratch").program(_words()).workdir == "/scratch"
    assert _wish("x").program(_words()).workdir == "/srv"
    assert _wish("x").program(_words(workdir="")).workdir is None
    with pytest.raises(UsageError):
        _wish("x", workdir="scratch").program(_words())


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
            run_in_image(Target("alpine:3", Wants(), url, path, wanted, 5.0), _wish())


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Wants(modules=("mpich", "gpu")), "the modules mpich, gpu cannot be had here"),
        (Wants((Volume("/s", "/tmp", cache=1 << 30),)), "no perNodeCache at /tmp here"),
    ],
)
def test_what_only_an_agent_can_give_is_refused_before_anybody_is_asked(
    wanted: Wants, told: str, tmp_path: Path
) -> None:
    target = Target("alpine:3", wanted, "http://127.0.0.1:1", tmp_path / "x.sock", None, 5.0)
    with pytest.raises(NeedsAgentError, match=told):
        run_in_image(target, _wish())
