"""Steps into an inside, for whoever takes them: the job's set-up on a node, or a user alone."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared import linux

MOUNTS: Final = "mnt"
USERS: Final = "user"
USERS_MOUNTS: Final = "user-mnt"
"""The files of a job's inside, as its node's agent pins them."""

REFUSING: Final = (
    ("user/max_user_namespaces", "0"),
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
)
"""Settings of a kernel by which a site keeps users from namespaces of their own."""


def users_may_have_namespaces(sysctls: Path = Path("/proc/sys")) -> bool:
    for name, refusing in REFUSING:
        with suppress(OSError):
            if (sysctls / name).read_text(encoding="ascii").strip() == refusing:
                return False
    return True


def join(pinned: Path) -> None:
    """Go where a job's inside is, with one thread only: as root, or as the user whose it is."""
    if os.geteuid() == 0:
        _join(pinned / MOUNTS, linux.CLONE_NEWNS)
    else:
        _join(pinned / USERS, linux.CLONE_NEWUSER)
        _join(pinned / USERS_MOUNTS, linux.CLONE_NEWNS)
    os.chdir("/")


def _join(file: Path, kind: int) -> None:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(fd, kind)
    finally:
        os.close(fd)


def change_root(inside: int) -> None:
    """Make the root of the inside that of this process, and leave the host's behind."""
    os.fchdir(inside)
    try:
        linux.pivot_root(".", ".")
        linux.umount(".", linux.MNT_DETACH)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        move_root()
    os.chdir("/")


def move_root() -> None:
    """For diskless nodes that run from their initial RAM file system: it cannot be pivoted."""
    linux.mount(".", "/", flags=linux.MS_MOVE)
    os.chroot(".")
