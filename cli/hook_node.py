"""`dray hook prolog` and `epilog`: a job comes to a node, and leaves it.

What became of its images is left in a file, since no scheduler carries a prolog's words to a user:
the SPANK plugin reads it as root, and tells.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cli.agent import Agent, PinnedImage, Prepared, Whose
from cli.errors import CliError, UnreachableError, UsageError
from cli.gateway import Gateway
from cli.hook_guard import one_line, report
from cli.hook_job import failures_of
from cli.hook_notes import Notes, checked
from cli.job_images import IMAGE_ID, IMAGES, read_images, read_pulls, written
from shared.errors import DrayError
from shared.inside.devices import VARIABLES
from shared.inside.module_names import read_module_names
from shared.inside.volumes import parse_volumes

AGENT_SECONDS: Final = 15.0
"""How long an agent may be away, which is being restarted perhaps, before the job hears of it."""
ANNOUNCED_SECONDS: Final = 10.0
"""After which a node without word of its job asks why."""
MARGIN: Final = 2.0
"""Of the hook's time, for all but waiting for the agent."""
TRY_AGAIN: Final = 0.25
READY: Final = "ready"
FAILED: Final = "failed"
INSIDE: Final = "inside"
SUFFIX: Final = ".images"
MAX_REASON: Final = 1000


class NotPreparedError(CliError):
    """The job begins without its images, and knows why."""

    code = "not_prepared"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job's images and what is wanted in them, as its environment names them."""

    images: str
    pulls: str
    volumes: str = ""
    modules: str = ""

    def of(self, user: Whose) -> Whose:
        """What the scheduler alone knew of the volumes' paths is put in."""
        known = {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}
        volumes = tuple(volume.text for volume in parse_volumes([self.volumes], env=known))
        modules = read_module_names([self.modules])
        devices = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
        return replace(user, volumes=volumes, modules=modules, devices=devices)


class Verdicts:
    """One file for each job that is here.

    `failed` and the reason; or `ready`, variables that the job's environment may lack, and the
    images' ids and places; a line that begins with `inside` says where one can be entered.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, job_id: str, prepared: Prepared) -> None:
        if prepared.ready:
            lines = [READY]
            if prepared.images:
                lines.append(f"{IMAGE_ID}={prepared.images[0].image_id}")
                lines.append(f"{IMAGES}={written(prepared.images)}")
            lines += [f"{mount.image_id} {mount.path}" for mount in prepared.mounts]
            lines += [f"{INSIDE} {inside.image_id} {inside.path}" for inside in prepared.insides]
        else:
            reason = " ".join(prepared.message.split())
            lines = [FAILED, reason[:MAX_REASON]]
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = self._path(job_id)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        # Ours alone: the plugin reads it before a step is its user's, who could otherwise change
        # it. And which images somebody uses is nobody else's business.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        partial.replace(path)

    def drop(self, job_id: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            self._path(job_id).unlink()

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{checked(job_id)}{SUFFIX}"


class Place:
    """One node, of which this machine may be several: %n in paths is its name."""

    def __init__(self, node: str, socket: str, state: Path) -> None:
        self._agent = Agent(Path(socket.replace("%n", node)) if socket else None)
        directory = Path(str(state).replace("%n", node))
        self._verdicts = Verdicts(directory)
        self._notes = Notes(directory)

    def prolog(self, job_id: str, whose: Whose, wanted: Wanted, url: str, wait: float) -> None:
        """Have the job's images mounted, and leave word of it."""
        self._notes.drop(checked(job_id))
        self._verdicts.drop(job_id)  # of this id's last job
        prepared = self._prepared(job_id, whose, wanted, url, wait)
        self._verdicts.write(job_id, prepared)
        if not prepared.ready:
            raise NotPreparedError(f"job {job_id} has no image here: {prepared.message}")
        self._tell(wait)

    def epilog(self, job_id: str, wait: float) -> None:
        """Have nothing of the job mounted any more; without an agent, as soon as there is one."""
        self._verdicts.drop(checked(job_id))
        with self._notes.kept(job_id):
            self._agent.release(job_id, wait)
        self._tell(wait)

    def _prepared(
        self, job_id: str, whose: Whose, wanted: Wanted, url: str, wait: float
    ) -> Prepared:
        try:
            whose = wanted.of(whose)
            pulls = read_pulls(wanted.pulls)
            # What is still to come has no id yet: the announcement will tell.
            images = () if pulls else read_images(wanted.images)
            if not images and not pulls:
                raise UsageError("it names no image")
            if not pulls:
                return self._asked(job_id, images, whose, wait)
            # A controller that could not announce the job has given up by now: do not wait long.
            first = min(wait, ANNOUNCED_SECONDS)
            prepared = self._asked(job_id, images, whose, first)
            why = [] if prepared.ready else _failures(url, pulls)
            if why:
                return failed("; ".join(why))
            if not prepared.ready and wait > 2 * first:
                prepared = self._asked(job_id, images, whose, wait - first)
        except DrayError as exc:
            return failed(one_line(exc))
        return prepared

    def _asked(
        self, job_id: str, images: tuple[PinnedImage, ...], whose: Whose, wait: float
    ) -> Prepared:
        began = time.monotonic()
        end = began + max(wait - MARGIN, wait / 2)
        while True:
            now = time.monotonic()
            try:
                return self._agent.prepare(job_id, images, whose, max(end - now, TRY_AGAIN))
            except UnreachableError:
                if now >= min(end, began + AGENT_SECONDS):
                    raise
            time.sleep(TRY_AGAIN)

    def _tell(self, wait: float) -> None:
        """What this hook came for is done already."""
        try:
            self._notes.tell(lambda job_id: self._agent.release(job_id, wait))
        except DrayError as exc:
            report(f"jobs that have ended are still to be told of: {one_line(exc)}")


def failed(reason: str) -> Prepared:
    return Prepared(ready=False, message=reason, mounts=())


def _failures(url: str, pulls: tuple[str, ...]) -> list[str]:
    """Why pulls have failed, as far as a gateway says."""
    try:
        return failures_of(Gateway(url), pulls)
    except DrayError:
        return []
