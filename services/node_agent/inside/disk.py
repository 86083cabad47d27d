"""A file system of the node's own for one job: XFS in a file that has no name.

The file lies where the user says, but the user can never open it, since the kernel believes what it
finds there. So root makes it. Where the file system knows files without a name, it becomes the
user's then, and its blocks count as theirs; elsewhere it stays root's.
"""

import errno
import os
import secrets
import subprocess
from pathlib import Path
from typing import Final

from services.node_agent import loop_device
from shared import linux
from shared.inside.errors import VolumeRefusedError
from shared.inside.walk import by_fd

_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_MKFS: Final = ("mkfs.xfs", "-q", "-f", "-K")
_MKFS_SECONDS: Final = 120.0
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC
_UNNAMED_UNKNOWN: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


def mount_disk(directory: int, called: str, size: int, owner: tuple[int, int], at: Path) -> int:
    """Make it, and mount it at `at`; returns its root directory, opened by path."""
    uid, gid = owner
    try:
        file, unnamed = _file(directory)
        try:
            os.ftruncate(file, size)
            if unnamed:
                os.fchown(file, uid, gid)  # the quota's, and nobody's to open by a name
            _make(file)
            device, path = loop_device.attach(file, "dray disk", writable=True)
        finally:
            os.close(file)
        try:
            linux.mount(path, str(at), "xfs", linux.MS_NOSUID | linux.MS_NODEV)
        finally:
            os.close(device)  # only the mount keeps it
    except OSError as exc:
        raise VolumeRefusedError(
            f"volume {called}: no file system can be made in that directory on this node "
            f"({exc.strerror}); is there room, and may the nodes' root write there?"
        ) from exc
    os.chown(at, uid, gid)
    at.chmod(0o700)
    return os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _file(directory: int) -> tuple[int, bool]:
    """And whether it never had a name."""
    try:
        return os.open(by_fd(directory), os.O_TMPFILE | _FLAGS, 0o600), True
    except OSError as exc:
        if exc.errno not in _UNNAMED_UNKNOWN:
            raise
    name = f".dray-{secrets.token_hex(8)}"
    file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | _FLAGS, 0o600, dir_fd=directory)
    os.unlink(name, dir_fd=directory)
    if os.fstat(file).st_nlink:  # in a directory of theirs a user may give it another one
        os.close(file)
        raise OSError(errno.EBUSY, "somebody renames files there")
    return file, False


def _make(file: int) -> None:
    try:
        done = subprocess.run(
            [*_MKFS, by_fd(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[file],
            env={"PATH": _PATH},
            timeout=_MKFS_SECONDS,
            check=False,
        )
    except FileNotFoundError as exc:
        raise OSError(errno.ENOENT, "the program mkfs.xfs (package xfsprogs) is missing") from exc
    except subprocess.TimeoutExpired as exc:
        raise OSError(errno.ETIMEDOUT, "mkfs.xfs does not come to an end") from exc
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise OSError(errno.EIO, said[-1] if said else f"mkfs.xfs ended with {done.returncode}")
