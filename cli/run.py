"""`dray run`: have an image mounted on this node, and become a command inside it.

The agent takes the mount back when this process ends, whatever it has become by then and however
it ends. So signals, job control and exit status are the command's own.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from cli import job_images
from cli.agent import Agent, PinnedImage
from cli.answers import Program, read_image
from cli.enter import DEFAULT_PATH, enter
from cli.errors import UsageError
from cli.gateway import Gateway

FROM_HERE: Final = ("HOME", "USER", "LOGNAME", "TERM", "LANG", "LC_ALL", "TZ")
"""What a command has to know about who started it; the image and -e may say otherwise."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wrote. Without a reference: the image of the job that this runs in."""

    reference: str | None
    system: str | None
    command: tuple[str, ...]
    options: tuple[str, ...]
    workdir: str | None
    entrypoint: str | None


def run_in_image(url: str, socket: Path | None, wish: Wish, wait: float) -> NoReturn:
    """Returns only by an error, while there is no command yet."""
    agent = Agent(socket)
    if wish.reference is None:
        pinned, reference = image_of_job(os.environ)
        image: Program = agent.program(pinned, reference)
    else:
        # An image of another cluster would be of no use here.
        system = wish.system or agent.system()
        image = read_image(Gateway(url).image(wish.reference, system))
    command = command_for(wish, image)
    env = environment_for(wish, image, os.environ)
    workdir = workdir_for(wish, image)
    job_id = f"run-{os.getpid()}-{secrets.token_hex(4)}"
    enter(Path(agent.mount(job_id, image, wait)), command, env=env, workdir=workdir)


def image_of_job(environment: Mapping[str, str]) -> tuple[PinnedImage, str]:
    """The image that this job was submitted with, and what to call it."""
    images = job_images.read_images(environment.get(job_images.IMAGES, ""))
    if not images:
        raise UsageError(
            "no image is named, and this is no job that has one: write the image behind the "
            "options, for example: dray run alpine:3, or submit the job with --image"
        )
    wanted = environment.get(job_images.IMAGE_ID) or images[0].image_id
    for image in images:
        if image.image_id == wanted:
            return image, environment.get(job_images.IMAGE) or wanted
    raise UsageError(
        f"{job_images.IMAGE_ID} is {wanted!r}, which is none of the images in {job_images.IMAGES}: "
        "leave the variables of the job as they are"
    )


def command_for(wish: Wish, image: Program) -> tuple[str, ...]:
    """Docker's rule: the entrypoint, then the user's words or else the image's.

    An entrypoint of the user's own takes the image's words away with the image's entrypoint.
    """
    if wish.entrypoint is not None:
        entrypoint = (wish.entrypoint,) if wish.entrypoint else ()
        command = entrypoint + wish.command
    else:
        command = image.entrypoint + (wish.command or image.cmd)
    if not command:
        raise UsageError(
            f"{image.reference} does not say what to run: write a command behind it, "
            f"for example: dray run {wish.reference or '--'} /bin/sh"
        )
    return command


def environment_for(wish: Wish, image: Program, here: Mapping[str, str]) -> dict[str, str]:
    """A few variables of the caller, then the image's, then the options; each may replace."""
    env = {name: here[name] for name in FROM_HERE if name in here}
    for entry in image.env:
        name, _, value = entry.partition("=")
        if name:
            env[name] = value
    if not env.get("PATH"):
        env["PATH"] = DEFAULT_PATH
    for option in wish.options:
        name, given, value = option.partition("=")
        if not name or "\0" in option:
            raise UsageError(f"-e {option!r}: write NAME=VALUE, or NAME to take it over from here")
        if given:
            env[name] = value
        elif name in here:
            env[name] = here[name]
    return env


def workdir_for(wish: Wish, image: Program) -> str | None:
    """The user's, else the image's; else it stays where the user is, as far as the image has it."""
    workdir = wish.workdir or image.workdir or None
    if workdir is not None and not workdir.startswith("/"):
        raise UsageError(f"the working directory {workdir!r} must begin with '/'")
    return workdir
