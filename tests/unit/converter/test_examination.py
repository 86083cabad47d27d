"""What a site's examiner is told, what its answers mean, and what becomes of one that fails."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.converter.examination import MAX_ANSWER, Examination, ExaminationError
from services.converter.sources.interface import SourceImage, SourceLayer
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, DrayError, NotAdmittedError
from shared.events import PullRequested
from shared.image.recipe import ImageConfig, PackOptions, SourceDigests
from shared.progress import Part
from shared.settings.lifecycle import AdmissionSettings
from shared.states import State
from tests.support.conditions import eventually
from tests.support.packers import alive

DIGESTS = SourceDigests(
    reference="sha256:" + "1" * 64,
    manifest="sha256:" + "2" * 64,
    config="sha256:" + "3" * 64,
    layers=("sha256:" + "4" * 64,),
)
EVENT = PullRequested(
    correlation_id="pull-1",
    key="k",
    attempt=1,
    reference="docker.io/library/debian:12",
    platform="linux/amd64",
    options=PackOptions(),
    max_dead_share=0.1,
    user="ada",
    ticket="t" * 32,
)


class Watched:
    """The stages that were entered."""

    def __init__(self) -> None:
        self.stages: list[State] = []

    def expect(self, parts: dict[str, Part]) -> None:
        raise AssertionError

    def enter(self, stage: State, whole: Part | None = None) -> None:
        self.stages.append(stage)


@dataclass
class Proof:
    authenticated: bool = True


def image() -> SourceImage:
    def never(_: Deadline) -> Any:
        raise AssertionError

    layer = SourceLayer("sha256:" + "5" * 64, DIGESTS.layers[0], 1000, never)
    config = ImageConfig(env=("PATH=/bin",))
    return SourceImage("debian:12", config, DIGESTS, (layer,))


async def examined(watched: Watched | None = None, **rules: Any) -> None:
    examination = Examination(AdmissionSettings.model_validate(rules), EVENT, Proof())
    await examination.examine(image(), watched or Watched(), Deadline.after(20))


def command(tmp_path: Path, program: str) -> list[str]:
    """A command that runs this Python program."""
    script = tmp_path / "examine.py"
    script.write_text(f"import json, os, sys, time\n{program}\n")
    return [sys.executable, str(script)]


async def test_a_command_is_told_what_came_and_nothing_that_is_secret(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    program = f"""
told = json.load(sys.stdin)
told["environment"] = dict(os.environ)
told["place"] = os.getcwd()
json.dump(told, open({str(heard)!r}, "w"))
print("ignored")
"""
    os.environ["DRAY_TEST_SECRET"] = "xyzzy"
    try:
        watched = Watched()
        await examined(watched, command=command(tmp_path, program))
    finally:
        del os.environ["DRAY_TEST_SECRET"]
    assert watched.stages == [State.EXAMINATION]
    told = json.loads(heard.read_text())
    assert told["reference"] == "docker.io/library/debian:12"
    assert (told["user"], told["private"], told["pull"]) == ("ada", True, "pull-1")
    assert told["manifest_digest"] == DIGESTS.manifest
    assert told["layers"] == [
        {"digest": DIGESTS.layers[0], "diff_id": "sha256:" + "5" * 64, "size": 1000}
    ]
    assert told["config"]["env"] == ["PATH=/bin"]
    assert told["place"] == "/"
    assert "xyzzy" not in heard.read_text()
    assert EVENT.ticket is not None
    assert EVENT.ticket not in heard.read_text()


async def test_a_command_refuses_and_says_why(tmp_path: Path) -> None:
    refusing = command(tmp_path, "print('CVE-1\\x1b[31m\\n  and more'); sys.exit(1)")
    with pytest.raises(NotAdmittedError) as caught:
        await examined(command=refusing, advice="call 12")
    message = "docker.io/library/debian:12 is not let in: CVE-1 [31m and more; call 12"
    assert caught.value.message == message
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("sys.exit(2)", ExaminationError),
        ("os.kill(os.getpid(), 9)", ExaminationError),
        ("time.sleep(60)", DeadlineExceededError),
        ("os.fork(); time.sleep(60)", DeadlineExceededError),
        (f"sys.stdout.write('x' * {2 * MAX_ANSWER})", ExaminationError),
    ],
)
async def test_a_command_that_fails_refuses_unless_the_site_says_otherwise(
    tmp_path: Path, program: str, error: type[DrayError]
) -> None:
    rules: dict[str, Any] = {"command": command(tmp_path, program), "timeout": 1.0}
    with pytest.raises(error) as caught:
        await examined(**rules)
    assert caught.value.retryable
    await examined(**rules, on_error="allow")


async def test_what_a_command_leaves_behind_ends_with_its_time(tmp_path: Path) -> None:
    note = tmp_path / "left"
    leaving = command(
        tmp_path,
        f"child = os.fork()\nif child: open({str(note)!r}, 'w').write(str(child)); os._exit(0)\n"
        "time.sleep(60)",
    )
    with pytest.raises(DeadlineExceededError):
        await examined(command=leaving, timeout=1.0)
    left = int(note.read_text())
    await eventually(lambda: not alive(left), within=5)


async def test_a_command_that_is_not_there() -> None:
    with pytest.raises(ExaminationError, match="cannot be started: No such file"):
        await examined(command=["/nowhere/examine"])


@asynccontextmanager
async def examiner(answer: web.StreamResponse | None) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that answers so; None: never."""
    heard: list[Any] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        heard.append((request.content_type, await request.json()))
        if answer is None:
            await request.content.wait_eof()
            raise web.HTTPGatewayTimeout
        return answer

    app = web.Application()
    app.add_routes([web.post("/examine", handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/examine", heard
    finally:
        await runner.cleanup()


async def test_a_url_decides() -> None:
    async with examiner(web.json_response({"admit": True})) as (url, heard):
        await examined(url=url)
        [(kind, told)] = heard
        assert kind == "application/json"
        assert told["reference_digest"] == DIGESTS.reference
    async with examiner(web.json_response({"admit": False, "reason": "no"})) as (url, _):
        with pytest.raises(NotAdmittedError, match=r"not let in: no$"):
            await examined(url=url)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (web.Response(status=500), "answered 500"),
        (web.Response(status=302, headers={"Location": "http://elsewhere.invalid/"}), "302"),
        (web.Response(text="maybe"), "no verdict"),
        (web.json_response({"reason": "x"}), "no verdict"),
        (web.Response(body=b"x" * (MAX_ANSWER + 1)), "more than"),
    ],
)
async def test_a_url_that_fails(answer: web.StreamResponse, problem: str) -> None:
    async with examiner(answer) as (url, _):
        with pytest.raises(ExaminationError, match=problem):
            await examined(url=url)


async def test_a_url_that_nobody_serves() -> None:
    with pytest.raises(ExaminationError, match="cannot be reached"):
        await examined(url="http://127.0.0.1:9/examine")


@pytest.mark.parametrize("letter", "1234")
async def test_denied_digests_are_refused_before_anything_is_fetched(letter: str) -> None:
    rules = AdmissionSettings(deny_digests=("sha256:" + letter * 64,))
    with pytest.raises(NotAdmittedError, match=f"sha256:{letter}.*is denied"):
        Examination(rules, EVENT, Proof()).admit(image())
    Examination(AdmissionSettings(), EVENT, Proof()).admit(image())


async def test_what_somebody_has_looked_at_needs_no_examination() -> None:
    watched = Watched()
    await examined(watched, command=["/nowhere"], allow_digests=[DIGESTS.manifest])
    await examined(watched)
    assert watched.stages == []
