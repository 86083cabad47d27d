"""Files that appear whole or not at all, and what is left behind by owners that died."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"


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


def remove_stale_partials(directory: Path) -> int:
    """Remove partial files under `directory` whose owner is dead; returns how many."""
    removed = 0
    for partial in directory.rglob(f".*{PARTIAL}"):
        # Another sweep, or the owner, may have been faster.
        with suppress(FileNotFoundError), partial.open("rb") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()
            removed += 1
    return removed


def _create_locked(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PARTIAL}")
        file = partial.open("xb+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            # A sweep may have seen the file between its creation and its lock.
            if os.fstat(file.fileno()).st_nlink:
                return partial, file
        except BaseException:
            partial.unlink(missing_ok=True)
            file.close()
            raise
        file.close()
