"""Files that appear whole or not at all, and what is left behind by owners that died."""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
_RANDOM = 6


@contextmanager
def publishing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path` that takes its place when the body ends well, durably.

    It is locked while it is being written, so that a sweep can tell a dead owner's leftovers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, file = _create_locked(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` as durable as the files that they name."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def has_name(file: BinaryIO, path: Path) -> bool:
    """Whether this open file is still the one of that name.

    Its links do not tell: what is removed while it is open only gets another name on NFS.
    """
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def remove_stale_partials(directory: Path) -> int:
    """Remove partial files under `directory` whose owner is dead; returns how many."""
    return sum(_removed(partial) for partial in directory.rglob(f".*{PARTIAL}"))


def remove_stale_partials_of(path: Path) -> None:
    """Remove what dead owners left of making this one file, in a directory of somebody's own."""
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * _RANDOM}}}{re.escape(PARTIAL)}")
    for partial in tuple(path.parent.iterdir()):
        if name.fullmatch(partial.name):
            with suppress(PermissionError):  # somebody else's
                _removed(partial)


def _removed(partial: Path) -> bool:
    # Another sweep, or the owner, may have been faster.
    # NFS, where flock is emulated, locks exclusively only what is open for writing.
    with suppress(FileNotFoundError), partial.open("rb+") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.unlink()
        return True
    return False


def _create_locked(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM)}{PARTIAL}")
        file = partial.open("xb+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # A sweep may have seen the file between its creation and its lock.
            if has_name(file, partial):
                return partial, file
        except BaseException:
            partial.unlink(missing_ok=True)
            file.close()
            raise
        file.close()
