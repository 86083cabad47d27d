"""Completion in real shells: words that are known by heart, and images that the gateway knows."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.completion import places
from cli.main import app
from shared.api import ImagePage
from tests.support.scripted_gateway import Reply, Script, says, scripted_gateway
from tests.support.views import image_view

DRAY = Path(sys.executable).with_name("dray")
BREAKS = " \t\n\"'><=;|&(:@"
DRIVER = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$3
_dray
printf '%s\\n' "${COMPREPLY[@]}"
"""

CASES = [
    ("dray pu", ["pull"]),
    ("dray queue ", ["dead"]),
    ("dray queue --url http://host:1 ", ["dead"]),
    ("dray pull --no", ["--no-wait"]),
    ("dray convert --compression ", ["zstd", "gzip"]),
    ("dray completion z", ["zsh"]),
    ("dray store co", ["collect"]),
]


@pytest.fixture
def served() -> Iterator[tuple[str, Script]]:
    with scripted_gateway() as found:
        hub = "docker.io/library"
        images = tuple(image_view(reference=f"{hub}/alpine:{tag}") for tag in ("3", "3.1"))
        found[1].on("GET /api/v1/images?limit=500", says(ImagePage(items=images, next=None)))
        yield found


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        made = subprocess.run([DRAY, "completion", shell], capture_output=True, check=True)
        (directory / shell).write_bytes(made.stdout)
    return directory


def _environment(url: str) -> dict[str, str]:
    path = f"{DRAY.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "DRAY_URL": url, "TERM": "dumb"}


def _bash(script: Path, line: str, url: str = "http://127.0.0.1:1") -> list[str]:
    ended = subprocess.run(
        ["bash", "--norc", "-c", DRIVER, "bash", script / "bash", line, BREAKS],
        capture_output=True,
        text=True,
        env=_environment(url),
        timeout=60,
        check=False,
    )
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.parametrize(("line", "words"), CASES)
def test_bash_knows_commands_options_and_their_values(
    scripts: Path, line: str, words: list[str]
) -> None:
    assert _bash(scripts, line) == words


@pytest.mark.parametrize(("line", "words"), CASES)
def test_fish_knows_the_same(scripts: Path, line: str, words: list[str]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed (package: fish)")
    assert sorted(_fish(scripts, line)) == sorted(words)


def _fish(script: Path, line: str, url: str = "http://127.0.0.1:1") -> list[str]:
    ended = subprocess.run(
        ["fish", "--no-config", "-c", f'source {script / "fish"}; complete -C "$argv[1]"', line],
        capture_output=True,
        text=True,
        env=_environment(url),
        timeout=60,
        check=True,
    )
    return [row.partition("\t")[0] for row in ended.stdout.splitlines()]


def test_zsh_knows_the_same(scripts: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed (package: zsh)")
    # `compadd` of the test prints what the function offers: the line editor needs a terminal.
    driver = """
    compdef() { :; }; _files() { print -r -- FILES }
    compadd() { shift; print -r -- $@ }
    source $1; shift
    words=("$@") CURRENT=$# PREFIX=${@[-1]}
    _dray
    """
    for line, expected in CASES:
        ended = subprocess.run(
            ["zsh", "-f", "-c", driver, "zsh", scripts / "zsh", *line.split(" ")],
            capture_output=True,
            text=True,
            env=_environment("http://127.0.0.1:1"),
            timeout=60,
            check=False,
        )
        assert ended.stderr == ""
        prefix = line.split(" ")[-1]
        assert [word for word in ended.stdout.split() if word.startswith(prefix)] == expected


@pytest.mark.parametrize("shell", [_bash, _fish])
def test_images_are_those_of_the_gateway(
    scripts: Path, served: tuple[str, Script], shell: object
) -> None:
    if shell is _fish and shutil.which("fish") is None:
        pytest.skip("fish is not installed (package: fish)")
    url, _ = served
    complete = _fish if shell is _fish else _bash
    assert complete(scripts, "dray lookup alp", url) == ["alpine:3", "alpine:3.1"]
    assert complete(scripts, "dray pull docker.io/li", url)[0] == "docker.io/library/alpine:3"
    # readline takes what stands behind the colon for the word
    expected = ["3", "3.1"] if complete is _bash else ["alpine:3", "alpine:3.1"]
    assert complete(scripts, "dray run alpine:", url) == expected


def test_what_follows_an_image_to_run_is_its_command(
    scripts: Path, served: tuple[str, Script]
) -> None:
    url, script = served
    assert _bash(scripts, "dray run alpine:3 ", url) == []
    assert _bash(scripts, "dray run alpine:3 ls --", url) == []
    assert script.asked == []


def _suggest(url: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DRAY, "suggest", "references", prefix],
        capture_output=True,
        text=True,
        env=_environment(url),
        timeout=60,
        check=False,
    )


def test_a_name_that_a_shell_would_run_is_not_offered(served: tuple[str, Script]) -> None:
    url, script = served
    bad = [
        f'{{"reference": "{name}"}}' for name in ("$(id)", "a b", "-x", "`id`", "ok:1", "\\u001b")
    ]
    body = f'{{"items": [{", ".join(bad)}], "next": null}}'
    script.on("GET /api/v1/images?limit=500", Reply(body.encode()))
    assert _suggest(url).stdout == "ok:1\n"


@pytest.mark.parametrize("reply", [Reply(b"[]"), Reply(b"<html>", 500, "text/html")])
def test_a_gateway_that_makes_no_sense_offers_nothing(
    served: tuple[str, Script], reply: Reply
) -> None:
    url, script = served
    script.on("GET /api/v1/images?limit=500", reply)
    ended = _suggest(url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_gateway_that_is_slow_is_not_waited_for(served: tuple[str, Script]) -> None:
    url, script = served

    def slow() -> Reply:
        time.sleep(3)
        return Reply(b"{}")

    script.on("GET /api/v1/images?limit=500", slow)
    began = time.monotonic()
    ended = _suggest(url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert time.monotonic() - began < 2.5


def test_hidden_commands_are_not_offered_and_arguments_are_known() -> None:
    found = {place.path: place for place in places(app)}
    assert "suggest" not in {name for name, _ in found["dray"].commands}
    assert found["dray rm"].references == -1
    assert found["dray run"].references == 1
    assert found["dray nodes"].references == 0
