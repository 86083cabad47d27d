"""What an image that somebody puts together alone lacks of what jobs have at this site.

Said on stderr, by the first of all ranks: a program that misses a file system or a driver says
something else.
"""

import os
from collections.abc import Mapping
from typing import Final

from cli.of_job import Wants
from cli.output import complain
from cli.show import plain
from shared.inside.module_names import NONE
from shared.inside.site import Site

_RANKS: Final = ("SLURM_PROCID", "PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "FLUX_TASK_RANK")

Seen = Mapping[str, tuple[int, int]]
"""Directories by path, and which they are."""


def say_modules(site: Site, wants: Wants) -> None:
    """Whoever wants none misses none."""
    if site.modules and NONE not in wants.modules:
        _say(
            f"jobs have the modules {', '.join(site.modules)} here, and this image has not: that "
            "takes a job with this image, on a node whose agent runs as root; with --module=none "
            "nothing is said"
        )


def seen(site: Site) -> Seen:
    """Its file systems that are there."""
    found = {}
    for path in site.file_systems:
        if (which := _which(path)) is not None:
            found[path] = which
    return found


def say_file_systems(before: Seen) -> None:
    """Those that are there no more, now that the image is the root."""
    for path, which in before.items():
        if _which(path) != which:
            _say(
                f"{path} of this site is not in this image, which has no place for it, or "
                f"something else there: make an empty directory in the image (RUN mkdir -p {path})"
            )


def _which(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - stdlib strings throughout
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _say(line: str) -> None:
    rank = next((os.environ[name] for name in _RANKS if os.environ.get(name)), "0")
    if rank == "0":
        complain(f"dray: {plain(line)}")
