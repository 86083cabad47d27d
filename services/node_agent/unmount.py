"""Taking away what stands at a mount point, however it came there."""

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Final

from services.node_agent.errors import MountFailedError
from services.node_agent.mountinfo import mounts_below
from shared import linux
from shared.logging import get_logger

log = get_logger(__name__)

FUSERMOUNTS: Final = ("fusermount3", "fusermount")
_FUSERMOUNT_SECONDS: Final = 30.0


def clear(target: Path) -> None:
    """Unmount everything at `target`, then remove the directory or the unpacked tree."""
    for found in reversed(mounts_below(target)):
        _unmount(found.target)
    if left := mounts_below(target):
        raise MountFailedError(f"{left[0].target} is still mounted: cannot give it back")
    remove_tree(target)


def remove_tree(path: Path) -> None:
    """Remove a tree, also one with directories that its owner may not write to."""
    if not os.path.lexists(path):
        return
    path.chmod(0o700)
    for parent, names, _ in os.walk(path):
        for name in names:
            child = os.path.join(parent, name)  # noqa: PTH118 - no Path per file of an image
            if stat.S_ISDIR(os.lstat(child).st_mode):
                os.chmod(child, 0o700)  # noqa: PTH101
    shutil.rmtree(path)


def _unmount(target: Path) -> None:
    if os.geteuid() != 0:
        _fuse_unmount(target)
        return
    try:
        linux.umount(str(target), linux.UMOUNT_NOFOLLOW)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise MountFailedError(f"cannot unmount {target}: {exc.strerror}") from exc
        # A process still stands in it. It keeps what it has; nobody new gets in.
        log.warning("unmounted_while_in_use", target=str(target))
        linux.umount(str(target), linux.UMOUNT_NOFOLLOW | linux.MNT_DETACH)


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
