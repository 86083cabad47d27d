"""Paths of an image, which is hostile until proven otherwise: nothing here ever leads out of it.

Every step is an open of one name, by the directory that was opened before, and never by a symbolic
link; links are followed by reading them, with the image's root as the root.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from shared.inside.errors import NotAssembledError

_LINKS: Final = 40
"""As many as the kernel follows."""
_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path of the image is: what there is of it, and the names that are missing."""

    found: tuple[str, ...]
    missing: tuple[str, ...]
    directory: bool
    """Of what was found: the last of it is a directory."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.found + self.missing

    @property
    def path(self) -> str:
        return "/" + "/".join(self.names)


def parts(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def resolve(root: int, path: str, *, to_itself: bool = False) -> Place:
    """Follow the path from `root`, with its links; one at its end not where `to_itself`."""
    trail = [os.dup(root)]
    found: list[str] = []
    pending = parts(path)[::-1]
    links = 0
    try:
        while pending:
            name = pending.pop()
            if name == "..":
                if found:
                    found.pop()
                    os.close(trail.pop())
                continue
            try:
                fd = os.open(name, _STEP, dir_fd=trail[-1])
            except (FileNotFoundError, NotADirectoryError):
                pending.append(name)
                break
            mode = os.fstat(fd).st_mode
            if not stat.S_ISLNK(mode) or (to_itself and not pending):
                trail.append(fd)
                found.append(name)
                continue
            os.close(fd)
            links += 1
            if links > _LINKS:
                raise NotAssembledError(f"{path} of the image leads round in a circle of links")
            target = os.readlink(name, dir_fd=trail[-1])
            pending += parts(target)[::-1]
            if target.startswith("/"):
                while found:
                    found.pop()
                    os.close(trail.pop())
        missing = tuple(pending[::-1])
        if ".." in missing:
            raise NotAssembledError(f"{path} of the image leads nowhere")
        directory = stat.S_ISDIR(os.fstat(trail[-1]).st_mode)
        if missing and not directory:
            raise NotAssembledError(f"/{'/'.join(found)} of the image is no directory")
        return Place(tuple(found), missing, directory)
    finally:
        for fd in trail:
            os.close(fd)


@contextmanager
def opened(root: int, names: Sequence[str]) -> Iterator[int]:
    """What these names lead to, as a descriptor for its path; an error if one is a link."""
    fd = os.dup(root)
    try:
        for name in names:
            following = os.open(name, _STEP, dir_fd=fd)
            os.close(fd)
            fd = following
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise NotAssembledError(f"/{'/'.join(names)} of the image is reached by a link")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_entry(directory: int, name: str) -> Iterator[int]:
    """An entry itself, be it a link."""
    fd = os.open(name, _STEP, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


def make_place(root: int, names: Sequence[str], *, directory: bool) -> None:
    """Have an empty directory or file there, below directories that are made as well."""
    with opened(root, ()) as start:
        fd = os.dup(start)
    try:
        for depth, name in enumerate(names, 1):
            last = depth == len(names)
            if last and not directory:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o444, dir_fd=fd))
                return
            with suppress(FileExistsError):  # another mount's place is beside this one
                os.mkdir(name, 0o755, dir_fd=fd)
            following = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = following
    finally:
        os.close(fd)


def by_fd(fd: int) -> str:
    """A path for system calls that know no descriptors."""
    return f"/proc/self/fd/{fd}"
