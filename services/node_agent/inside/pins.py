"""Pinned namespaces: files by which a job's processes find the inside of its images.

insides/<name>/mnt         for root, who keeps the job's user and groups as they are
insides/<name>/user        with the next, for the user: entered without any privilege
insides/<name>/user-mnt
insides/<name>/whole       nothing is left to be done for it
insides/<name>/…           see `shared.inside.manifest`
insides/<job>@<image>      leads to the one that a job has of an image

Each is a mount of the kernel's file for the namespace, which lives as long as that, or a process in
it, does. All of it blocks.
"""

import errno
import os
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.node_agent import access
from services.node_agent.mountinfo import mounts_below
from services.node_agent.unmount import clear
from shared import linux
from shared.inside.enter import MOUNTS

ALIAS: Final = "@"
_CONCLUDED: Final = "whole"


class Pins:
    """Those of one agent, in a directory whose mounts nobody else is told of."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.directory = directory.resolve()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Where nothing is pinned, leave nothing mounted: another agent begins anew."""
        with self._lock:
            if self._mounted and not self.names:
                linux.umount(str(self.directory), linux.UMOUNT_NOFOLLOW | linux.MNT_DETACH)

    @property
    def _mounted(self) -> bool:
        return any(found.target == self.directory for found in mounts_below(self.directory))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(path.name for path in self.directory.iterdir())

    def make(self, name: str) -> Path:
        """An empty directory of this name, instead of whatever was there."""
        with self._lock:
            if not self._mounted:
                own = str(self.directory)
                linux.mount(own, own, flags=linux.MS_BIND)
                # The kernel refuses to pin where a mount would be told to others.
                linux.mount("none", own, flags=linux.MS_PRIVATE)
            self.remove(name)
            place = self.directory / name
            place.mkdir(mode=0o711)
        return place

    def describe(self, name: str, files: Mapping[str, bytes], uid: int) -> None:
        """Small files beside the namespaces, for the user's eyes only, and not theirs to fill."""
        for called, content in files.items():
            path = self.directory / name / called
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o400)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                try:
                    access.let(uid, path, access.READ)
                except OSError as exc:
                    if exc.errno != errno.EOPNOTSUPP:
                        raise
                    os.fchown(fd, uid, -1)  # no memory of all: that of /run knows such lists

    def pin(self, name: str, pid: int, *, kind: str, called: str) -> None:
        """Keep a namespace of this process."""
        target = self.directory / name / called
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        linux.mount(f"/proc/{pid}/ns/{kind}", str(target), flags=linux.MS_BIND)

    def call(self, name: str, alias: str) -> None:
        """Another name for it, whatever that led to."""
        link = self.directory / f"{alias}.{secrets.token_hex(4)}"
        link.symlink_to(name)
        link.replace(self.directory / alias)

    def conclude(self, name: str) -> None:
        """Everything was done for it, and whoever wants it may be told."""
        (self.directory / name / _CONCLUDED).touch(0o444)

    def is_whole(self, name: str) -> bool:
        """Whether what is pinned there still is: a reboot leaves files alone."""
        place = self.directory / name
        pinned = any(found.target == place / MOUNTS for found in mounts_below(place))
        return pinned and (place / _CONCLUDED).exists()

    def remove(self, name: str) -> None:
        """Whoever is in there stays; nobody else comes in."""
        if ALIAS in name:
            (self.directory / name).unlink(missing_ok=True)
            return
        clear(self.directory / name)
