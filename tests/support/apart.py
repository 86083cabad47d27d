"""Tests that run at the same time, in several processes, each as if alone on the machine."""

import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

from shared import linux

WORKERS: Final = 3
"""Tests wait for servers more than they compute: more of them at once than the machine has cores,
and not so many that their deadlines would pass."""

_SLOWEST_FIRST: Final = ("tests/system/test_slurm", "tests/system", "tests/integration", "tests")

_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1


def stand_apart() -> None:
    """Mounts, loopback ports and abstract sockets of this process's own, where it is root.

    So no test sees, counts or is given what belongs to another. Ordinary users mount nothing that
    others see, and share the ports.
    """
    if os.geteuid() != 0:
        return
    linux.unshare(linux.CLONE_NEWNS | _CLONE_NEWNET)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def rank(path: Path, root: Path) -> int:
    """Whole sites first: a worker that begins a long file last keeps all others waiting."""
    place = str(path.relative_to(root))
    return next(rank for rank, kind in enumerate(_SLOWEST_FIRST) if place.startswith(kind))
