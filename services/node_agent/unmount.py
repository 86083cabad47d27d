"""Taking away what stands at a mount point, however it came there."""

import errno
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Final

from services.node_agent.errors import MountFailedError
from services.node_agent.mountinfo import mounts_below
from shared import linux
from shared.logging import get_logger

log = get_logger(__name__)

FUSERMOUNTS: Final = ("fusermount3", "fusermount")
_FUSERMOUNT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def clear(target: Path, patience: float = 0.0) -> None:
    """Unmount everything at `target`, then remove the directory or the unpacked tree.

    Processes that still stand in it may take so many seconds to leave; then it goes all the same.
    """
    until = time.monotonic() + patience
    for found in reversed(mounts_below(target)):
        _unmount(found.target, until)
    if left := mounts_below(target):
        raise MountFailedError(f"{left[0].target} is still mounted: cannot give it back")
    remove_tree(target)


def remove_tree(path: Path) -> None:
    """Remove a tree, also one with directories that its owner may not write to.

    Nothing is looked up by a path that somebody could lead elsewhere while we are at it.
    """
    if not os.path.lexists(path):
        return
    parent = os.open(path.parent, _DIRECTORY)
    try:
        _remove_directory(path.name, parent)
    finally:
        os.close(parent)


def _remove_directory(name: str, parent: int) -> None:
    directory = _open_directory(name, parent)
    try:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in found:
            if is_directory:
                _remove_directory(child, directory)
            else:
                os.unlink(child, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)


def _open_directory(name: str, parent: int) -> int:
    """The directory of this name, and no symlink's target, made accessible to its owner."""
    place = os.open(name, os.O_PATH | _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if os.fstat(place).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            # What is opened by path only can be changed through here, and nothing else with it.
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)  # noqa: PTH101
        return os.open(".", _DIRECTORY, dir_fd=place)
    finally:
        os.close(place)


def _unmount(target: Path, until: float) -> None:
    if os.geteuid() != 0:
        _fuse_unmount(target)
        return
    while _is_busy(target):
        if time.monotonic() >= until:
            # A process still stands in it. It keeps what it has; nobody new gets in.
            log.warning("unmounted_while_in_use", target=str(target))
            linux.umount(str(target), linux.UMOUNT_NOFOLLOW | linux.MNT_DETACH)
            return
        time.sleep(_LOOK_SECONDS)


def _is_busy(target: Path) -> bool:
    try:
        linux.umount(str(target), linux.UMOUNT_NOFOLLOW)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise MountFailedError(f"cannot unmount {target}: {exc.strerror}") from exc
        return True
    return False


def _fuse_unmount(target: Path) -> None:
    program = next(filter(None, map(shutil.which, FUSERMOUNTS)), None)
    if program is None:
        raise MountFailedError(f"cannot unmount {target}: fusermount3 is not installed")
    done = subprocess.run(
        [program, "-u", "-z", str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_FUSERMOUNT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise MountFailedError(f"cannot unmount {target}: {said}")
