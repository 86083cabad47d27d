"""Steps into an inside, for whoever takes them: the job's set-up on a node, or a user alone."""

import errno
import os

from shared import linux


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
