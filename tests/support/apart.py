"""Tests that run at the same time, in several processes, each with mounts of its own."""

import os
from pathlib import Path
from typing import Final

from shared import linux

WORKERS: Final = 3
"""Tests wait for servers more than they compute: more of them at once than the machine has cores,
and not so many that their deadlines would pass."""

_SLOWEST_FIRST: Final = ("tests/system/test_slurm", "tests/system", "tests/integration", "tests")


def stand_apart() -> None:
    """Mounts of this process's own, where it is root: no test sees or counts those of another.

    Ports are shared: where loopback is all the network there is, Slurm does not start.
    """
    if os.geteuid() == 0:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)


def rank(path: Path, root: Path) -> int:
    """Whole sites first: a worker that begins a long file last keeps all others waiting."""
    place = str(path.relative_to(root))
    return next(rank for rank, kind in enumerate(_SLOWEST_FIRST) if place.startswith(kind))
