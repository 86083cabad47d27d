"""From an image that somebody names to a process in it: by the inside that this node's agent made
for the job, or by one that this process puts together for itself.

Both `dray run` and `shifter` come this way; what an image's words mean is for each to say. The
agent takes a mount back when this process ends, whatever it has become by then and however it
ends. So signals, job control and exit status are the command's own.
"""

import os
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn, Protocol

from cli import lacking, of_job
from cli.errors import CliError, RefusedError, UnreachableError
from cli.of_job import JobImage, Wants
from cli.words import Words, of_inside, of_program
from shared.inside.module_names import NONE
from shared.inside.site import Site


class NeedsAgentError(CliError):
    """What is wanted in the image takes an agent that puts it together."""

    code = "needs_agent"


@dataclass(frozen=True, slots=True)
class Target:
    """The image, and where it is to be had. Without a reference: the job's."""

    reference: str | None
    wants: Wants
    url: str
    socket: Path | None
    system: str | None
    wait: float


@dataclass(frozen=True, slots=True)
class Program:
    """What to become, and where."""

    command: tuple[str, ...]
    env: dict[str, str]
    workdir: str | None


class Meaning(Protocol):
    """What becomes of an image's words and of the user's."""

    def program(self, words: Words) -> Program: ...


def run_in_image(target: Target, meaning: Meaning) -> NoReturn:
    """Returns only by an error, while there is no command yet."""
    image = (
        of_job.the_image(os.environ)
        if target.reference is None
        else of_job.image_named(target.reference, os.environ)
    )
    pinned = None if image is None else _inside(target, image)
    if image is not None and pinned is not None:
        _run_in_inside(pinned, meaning.program(of_inside(pinned, image.name, image.image_id)))
    _require_none_of_agents(target.wants)
    _run_alone(target, image, meaning)


def run_in_directory(
    directory: Path, wants: Wants, meaning: Meaning, socket: Path | None
) -> NoReturn:
    """The same in an image that somebody unpacked; this takes no agent, but where there is one, it
    knows the site.
    """
    from cli.agent import Agent  # noqa: PLC0415
    from cli.enter import enter  # noqa: PLC0415

    _require_none_of_agents(wants)
    try:
        site = Agent(socket).site()
    except UnreachableError:
        site = Site()
    lacking.say_modules(site, wants)
    program = meaning.program(Words(str(directory), str(directory), changes=site.changes))
    enter(
        directory,
        program.command,
        env=program.env,
        workdir=program.workdir,
        volumes=wants.volumes,
        site=site,
    )


def _inside(target: Target, image: JobImage) -> Path | None:
    """Where this node's agent has it, or puts it together; None where there is no such agent."""
    job, directory = of_job.job_id(os.environ), of_job.insides(target.socket)
    if job is None or directory is None:
        return None
    if of_job.as_submitted(target.wants, os.environ):
        found = of_job.pinned_inside(directory, job, image.image_id)
        if found is not None:
            return found
    from cli.agent import Agent  # noqa: PLC0415

    volumes = [volume.text for volume in target.wants.volumes]
    agent = Agent(target.socket)
    try:
        made = agent.inside(job, image.image_id, volumes, target.wants.modules, target.wait)
    except RefusedError as exc:
        if exc.answered != HTTPStatus.NOT_FOUND:
            raise
        return None  # the job has no part in this node
    return made if of_job.enterable(made) else None


def _run_in_inside(pinned: Path, program: Program) -> NoReturn:
    from cli.enter import enter_job  # noqa: PLC0415

    enter_job(pinned, program.command, env=program.env, workdir=program.workdir)


def _run_alone(target: Target, image: JobImage | None, meaning: Meaning) -> NoReturn:
    from cli.agent import Agent, PinnedImage  # noqa: PLC0415
    from cli.answers import Program as Described  # noqa: PLC0415
    from cli.answers import read_image  # noqa: PLC0415
    from cli.enter import enter  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    agent = Agent(target.socket)
    if image is not None:
        pinned = PinnedImage(image.image_id, image.content_digest, image.size)
        described: Described = agent.program(pinned, image.name)
    else:
        # An image of another cluster would be of no use here.
        system = target.system or agent.system()
        described = read_image(Gateway(target.url).image(target.reference or "", system))
    site = agent.site()
    program = meaning.program(of_program(described, site.changes))
    job_id = f"run-{os.getpid()}-{os.urandom(4).hex()}"
    root = Path(agent.mount(job_id, described, target.wait))
    lacking.say_modules(site, target.wants)
    enter(
        root,
        program.command,
        env=program.env,
        workdir=program.workdir,
        volumes=target.wants.volumes,
        site=site,
    )


def _require_none_of_agents(wants: Wants) -> None:
    where = "that takes a job with this image, on a node whose agent runs as root"
    if any(name != NONE for name in wants.modules):
        raise NeedsAgentError(
            f"the modules {', '.join(wants.modules)} cannot be had here: {where}; leave out "
            "--module"
        )
    for volume in wants.volumes:
        if volume.cache is not None:
            raise NeedsAgentError(
                f"there is no perNodeCache at {volume.target} here: {where}; bind a directory of "
                f"this node's, such as {volume.source}:{volume.target}"
            )
