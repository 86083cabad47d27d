"""Whether an image may come in: by its digests, and by what a site's own examiner says of it.

The examiner is a command or a URL of the site. It is told in JSON what was fetched, never a
password, and what it answers is bounded in time and size. Each attempt at a pull asks once; what a
registry has not changed since is not pulled, and so not asked about again.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NoReturn, Protocol

import aiohttp
from prometheus_client import Counter
from pydantic import ValidationError

from services.converter.conversion import Watcher
from services.converter.sources.interface import SourceImage
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, DrayError, NotAdmittedError
from shared.events import PullRequested
from shared.logging import get_logger
from shared.models import Tolerant
from shared.settings.lifecycle import AdmissionSettings
from shared.states import State

MAX_REASON: Final = 2000
MAX_ANSWER: Final = 64 << 10
EXIT_ADMITTED: Final = 0
EXIT_REFUSED: Final = 1
_ENVIRONMENT: Final = {"PATH": os.defpath, "LANG": "C.UTF-8"}

REFUSED = Counter(
    "dray_images_refused_total", "Images that were not let in for what they are made of."
)

log = get_logger(__name__)


class ExaminationError(DrayError):
    """The site's examiner could not say whether the image may come in."""

    code = "examination_failed"
    status = 503
    retryable = True


class Proof(Protocol):
    """What says, once an image is resolved, to whom its registry gives it."""

    @property
    def authenticated(self) -> bool: ...


class Verdict(Tolerant):
    """The answer of a URL."""

    admit: bool
    reason: str = ""


class Examination:
    """That of one attempt at one pull."""

    def __init__(self, rules: AdmissionSettings, event: PullRequested, proof: Proof) -> None:
        self._rules = rules
        self._event = event
        self._proof = proof

    def admit(self, image: SourceImage) -> None:
        digests = image.digests
        all_of_it = {digests.reference, digests.manifest, digests.config, *digests.layers}
        denied = sorted(all_of_it.intersection(self._rules.deny_digests))
        if denied:
            self._refuse(f"it has {denied[0]}, which is denied here")

    async def examine(self, image: SourceImage, watcher: Watcher, deadline: Deadline) -> None:
        rules = self._rules
        known = {image.digests.reference, image.digests.manifest}
        if not (rules.command or rules.url) or known.intersection(rules.allow_digests):
            return
        watcher.enter(State.EXAMINATION)
        told = json.dumps(self._told(image)).encode()
        bounded = deadline.sooner(rules.timeout)
        try:
            async with bounded.bound("having the image examined"):
                verdict = await (
                    _command(rules.command, told) if rules.command else self._url(told)
                )
        except (ExaminationError, DeadlineExceededError) as exc:
            log.warning("examination_failed", code=exc.code, error=exc.message)
            if rules.on_error == "allow" and not deadline.expired:
                return
            raise
        log.info("image_examined", admitted=verdict.admit)
        if not verdict.admit:
            self._refuse(_plain(verdict.reason) or "the site's examination refused it")

    def _refuse(self, reason: str) -> NoReturn:
        REFUSED.inc()
        advice = f"; {self._rules.advice}" if self._rules.advice else ""
        raise NotAdmittedError(f"{self._event.reference} is not let in: {reason}{advice}")

    def _told(self, image: SourceImage) -> Mapping[str, object]:
        return {
            "v": 1,
            "pull": self._event.correlation_id,
            "user": self._event.user,
            "reference": self._event.reference,
            "file": None if self._event.file is None else self._event.file.path,
            "platform": self._event.platform,
            "private": self._proof.authenticated,
            "reference_digest": image.digests.reference,
            "manifest_digest": image.digests.manifest,
            "config_digest": image.digests.config,
            "layers": [
                {
                    "digest": layer.name,
                    "diff_id": layer.diff_id,
                    "size": layer.size,
                }
                for layer in image.layers
            ],
            "config": image.config.model_dump(mode="json"),
        }

    async def _url(self, told: bytes) -> Verdict:
        url = self._rules.url
        assert url is not None
        try:
            async with (
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
                http.post(
                    url,
                    data=told,
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                body = await _bounded(response.content)
                if response.status != 200:
                    raise ExaminationError(f"the site's examiner answered {response.status}")
        except (aiohttp.ClientError, OSError) as exc:
            raise ExaminationError(f"the site's examiner cannot be reached: {exc}") from exc
        try:
            return Verdict.model_validate_json(body)
        except ValidationError as exc:
            raise ExaminationError("the site's examiner gave no verdict") from exc


async def _command(command: tuple[str, ...], told: bytes) -> Verdict:
    """Run it in a process group of its own, all of which ends if it takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as exc:
        raise ExaminationError(f"the site's examiner cannot be started: {exc.strerror}") from exc
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of it
            process.stdin.write(told)
            await process.stdin.drain()
        process.stdin.close()
        answer = await _bounded(process.stdout)
        code = await process.wait()
    except BaseException:
        # Also where it has ended, and something that it started still holds its output.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if code not in {EXIT_ADMITTED, EXIT_REFUSED}:
        raise ExaminationError(f"the site's examiner ended with {code}; 0 admits and 1 refuses")
    return Verdict(admit=code == EXIT_ADMITTED, reason=answer.decode("utf-8", "replace"))


async def _bounded(stream: asyncio.StreamReader | aiohttp.StreamReader) -> bytes:
    """All of it, or an error where that is too much."""
    content = b""
    while piece := await stream.read(MAX_ANSWER):
        content += piece
        if len(content) > MAX_ANSWER:
            raise ExaminationError(f"the site's examiner said more than {MAX_ANSWER} bytes")
    return content


def _plain(text: str) -> str:
    """A reason as it may be shown: one line of a sensible length, nothing for terminals."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(shown.split())[:MAX_REASON]
