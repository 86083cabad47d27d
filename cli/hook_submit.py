"""`dray hook submit`: what a job will run in, pinned before it is queued.

Its output is read by the SPANK plugin: one NAME=VALUE each line, for the job's environment. All
that it has to tell the user goes to stderr.
"""

import os
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

from cli import job_images, show
from cli.agent import PinnedImage
from cli.answers import Image, Pull, read_image, read_pull
from cli.errors import CliError, RefusedError, UsageError
from cli.follow import follow
from cli.gateway import Gateway, PullWish
from cli.output import complain
from shared.inside.module_names import PATTERN, read_module_names
from shared.states import State

Missing = Literal["pull", "wait", "fail"]
MISSPELT_SECONDS: Final = 5.0
"""How long a pull that is only started is watched: a name that is wrong shows at once."""
LOOK_AGAIN: Final = 0.25
QUIET_SECONDS: Final = 10.0
_MODULE: Final = re.compile(PATTERN)
_OF_THE_JOB: Final = re.compile(r"\$\{?(SLURM_[A-Z_]+)")
ID: Final = "id:"


class NoImageError(CliError):
    """The job cannot have its image, and the message says why."""

    code = "no_image"


@dataclass(frozen=True, slots=True)
class Submission:
    """What the user asks for, and what the site wants done about an image that is missing."""

    image: str
    volume: str
    module: str
    system: str | None
    if_missing: Missing


def submit(gateway: Gateway, wanted: Submission) -> dict[str, str]:
    """The job's variables."""
    volumes = _volumes(wanted.volume)
    modules = _modules(wanted.module)
    found = {}
    if wanted.image:
        found = _images(gateway, wanted)
    if wanted.volume:
        found[job_images.VOLUMES] = wanted.volume
        found[job_images.VOLUME_PATHS] = volumes
    if modules:
        found[job_images.MODULES] = ",".join(modules)
    for name, value in found.items():
        if not value.isprintable():
            raise UsageError(f"{name} would hold characters that cannot be printed")
    return found


def _images(gateway: Gateway, wanted: Submission) -> dict[str, str]:
    names = _names(wanted.image)
    images: list[Image | Pull] = [_image(gateway, name, wanted) for name in names]
    ready = [image for image in images if isinstance(image, Image)]
    pulls = [image for image in images if isinstance(image, Pull)]
    systems = sorted({image.system for image in images})
    if len(systems) > 1:
        raise UsageError(f"the images are of different systems: {', '.join(systems)}")
    found = {job_images.IMAGE: wanted.image, job_images.SYSTEM: systems[0]}
    first = images[0]
    if isinstance(first, Image):
        found[job_images.IMAGE_ID] = first.id
    if ready:
        found[job_images.IMAGES] = job_images.written(map(pinned, ready))
    if pulls:
        found[job_images.PULLS] = ";".join(image.id for image in images)
    return found


def pinned(image: Image) -> PinnedImage:
    return PinnedImage(image.id, image.content_digest, image.size)


def _names(text: str) -> list[str]:
    names = job_images.read_names(text)
    if not names:
        raise UsageError(f"--image={text!r} names no image: write it like ubuntu:24.04")
    if len(names) > job_images.MOST:
        raise UsageError(f"--image names {len(names)} images, and a job may have {job_images.MOST}")
    return names


def _volumes(text: str) -> str:
    """With the user's variables put in, which no node knows; here a mistake costs no time in the
    queue.
    """
    if not text:
        return ""
    from shared.inside.volumes import parse_volumes  # noqa: PLC0415

    later = _OF_THE_JOB.findall(text)  # Slurm will set it
    volumes = parse_volumes([text], env=os.environ, later=later)
    return ";".join(volume.text for volume in volumes)


def _modules(text: str) -> tuple[str, ...]:
    names = read_module_names([text])
    for name in names:
        if not _MODULE.fullmatch(name):
            raise UsageError(f"{name!r} is no module's name: write --module=mpich, or mpich,gpu")
    return names


def _image(gateway: Gateway, name: str, wanted: Submission) -> Image | Pull:
    by_id = name.startswith(ID)
    try:
        return read_image(gateway.image(name.removeprefix(ID), wanted.system))
    except RefusedError as exc:
        if exc.answered != HTTPStatus.NOT_FOUND or by_id or wanted.if_missing == "fail":
            raise
    pull = read_pull(gateway.request_pull(PullWish(name, wanted.system)).body)
    if wanted.if_missing == "wait":
        pull = _watched(gateway, pull)
    elif not pull.ended:
        pull = _known(gateway, pull)
    if not pull.ended:
        complain(f"dray: {show.plain(name)} is being pulled; the job waits for it")
        return pull
    return image_of(pull)


def image_of(pull: Pull) -> Image:
    """What a pull that has ended brought; an error with the reason if nothing."""
    if pull.state is State.READY and pull.image is not None:
        return pull.image
    reason = pull.failure or f"its pull ended as {pull.state}"
    raise NoImageError(f"{pull.reference} cannot be had: {reason}")


def _watched(gateway: Gateway, pull: Pull) -> Pull:
    """To its end, with a line for each state, and now and then in a long one."""
    again = show.pull_command(pull.reference, pull.system, gateway.option)
    said: State | None = None
    at = 0.0
    for pull in follow(gateway, pull, again, lambda _seconds, _why: None):  # noqa: B020, PLR1704
        now = time.monotonic()
        if not pull.ended and (pull.state is not said or now - at >= QUIET_SECONDS):
            said, at = pull.state, now
            complain(f"dray: {show.plain(pull.reference)}: {_how_far(pull)}")
    return pull


def _known(gateway: Gateway, pull: Pull) -> Pull:
    """Until the registry has said what the image is made of, or refused it."""
    until = time.monotonic() + MISSPELT_SECONDS
    while not pull.ended and time.monotonic() < until:
        if pull.progress is not None and pull.progress.layers:
            break
        time.sleep(LOOK_AGAIN)
        pull = read_pull(gateway.pull(pull.id))
    return pull


def _how_far(pull: Pull) -> str:
    progress = pull.progress
    if progress is None or not progress.total:
        return str(pull.state)
    return f"{pull.state} {show.size(progress.done)} of {show.size(progress.total)}"
