"""What a process finds of its job: the images by name, what was wanted in them, and the inside that
this node's agent put together for it.

The variables are the user's to change, so they are read as what a user says; who may enter what is
for the kernel and the agent to decide. Standard library only: each rank comes by here.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import defaults, job_images
from cli.errors import UsageError
from shared.errors import DrayError
from shared.imported import canonical
from shared.inside.enter import MOUNTS, USERS
from shared.inside.module_names import read_module_names
from shared.inside.volumes import Volume, parse_volumes

JOBS: Final = ("SLURM_JOB_ID", "DRAY_JOB_ID")
"""The second is for hooks of other schedulers to set."""
_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+\[\]-]{0,127}")
_BY_ID: Final = "id:"
_BY_SLURM: Final = "SLURM_SPANK_"


@dataclass(frozen=True, slots=True)
class JobImage:
    """An image that the job was submitted with; `name` is what the user called it."""

    name: str
    image_id: str
    content_digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Wants:
    """What somebody wants in an image."""

    volumes: tuple[Volume, ...] = ()
    modules: tuple[str, ...] = ()


def job_id(env: Mapping[str, str]) -> str | None:
    found = next((env[name] for name in JOBS if env.get(name)), "")
    return found if _JOB_ID.fullmatch(found) else None


def images(env: Mapping[str, str]) -> tuple[JobImage, ...]:
    pinned = job_images.read_pinned(env.get(job_images.IMAGES, ""))
    names = job_images.read_names(env.get(job_images.IMAGE, ""))
    if len(names) != len(pinned):  # some were not READY at submission: none can be told by its name
        names = [image_id for image_id, _, _ in pinned]
    return tuple(JobImage(name, *found) for name, found in zip(names, pinned, strict=True))


def the_image(env: Mapping[str, str]) -> JobImage:
    """The one that is meant where none is named."""
    found = images(env)
    if not found:
        raise UsageError(
            "no image is named, and this is no job that has one: write the image behind the "
            "options, for example: dray run alpine:3, or submit the job with --image"
        )
    wanted = env.get(job_images.IMAGE_ID) or found[0].image_id
    for image in found:
        if image.image_id == wanted:
            return image
    raise UsageError(
        f"{job_images.IMAGE_ID} is {wanted!r}, which is none of the images in {job_images.IMAGES}: "
        "leave the variables of the job as they are"
    )


def image_named(reference: str, env: Mapping[str, str]) -> JobImage | None:
    """The job's image that is called so, as it was when the job was submitted."""
    wanted = _same(reference)
    for image in images(env):
        if wanted in (_same(image.name), image.image_id):
            return image
    return None


def wants(env: Mapping[str, str]) -> Wants:
    return _wants(env, env)


def _wants(said: Mapping[str, str], env: Mapping[str, str]) -> Wants:
    volumes = said.get(job_images.VOLUMES, "")
    modules = said.get(job_images.MODULES, "")
    return Wants(parse_volumes([volumes], env=env), read_module_names([modules]))


def as_submitted(wanted: Wants, env: Mapping[str, str]) -> bool:
    """Whether it is what the job was submitted with, for which its own inside was put together.

    A step has other variables than its job where `srun` was given options; Slurm keeps the job's.
    """
    of_job = {
        name.removeprefix(_BY_SLURM): text
        for name, text in env.items()
        if name.startswith(f"{_BY_SLURM}DRAY_")
    }
    return wanted == wants(env) and (not of_job or wanted == _wants(of_job, env))


def insides(socket: Path | None) -> Path | None:
    """Where the agent of this node keeps insides, if one does: beside its socket."""
    for candidate in (socket,) if socket else defaults.usual_sockets():
        directory = candidate.parent / "insides"
        if directory.is_dir():
            return directory
    return None


def pinned_inside(directory: Path, job: str, image_id: str) -> Path | None:
    """The job's inside of an image, as it was wanted at submission."""
    alias = directory / f"{job}@{image_id}"
    return alias if enterable(alias) else None


def enterable(inside: Path) -> bool:
    """Whether there is a way for us: a site may have only its scheduler's plugin go inside."""
    return (inside / (MOUNTS if os.geteuid() == 0 else USERS)).exists()


def _same(reference: str) -> str:
    """What differently written names of one image have in common."""
    if reference.startswith(_BY_ID):
        return reference.removeprefix(_BY_ID)
    try:
        return canonical(reference)
    except DrayError:
        return reference  # an id, or what the gateway will have a word for
