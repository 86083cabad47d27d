"""Files that appear whole or not at all, and what is left behind by owners that died.

An owner holds the lock of its partial file. Whether another machine sees that lock is up to the
file system, so the name of a partial file tells on which machine, and in which boot of it, it was
made: there the lock says everything. Where locks may not be seen (Lustre with `localflock`, NFS),
whoever sweeps gives a time in which any living owner has written, and what is of elsewhere goes
only when it is older than that as well.
"""

import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
_RANDOM = 6
_MACHINE = 4
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Create = Callable[[Path], bool]
"""Makes an empty file of this new name by means of its own; False: it cannot, do it as usual."""


@contextmanager
def publishing(path: Path, create: Create | None = None) -> Iterator[BinaryIO]:
    """A new file beside `path` that takes its place when the body ends well, durably.

    It is locked while it is being written, so that a sweep can tell a dead owner's leftovers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, file = _create_locked(path, create)
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


def move_durably(path: Path, target: Path) -> None:
    """Give a finished file another name on the same file system, in place of what has it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
    sync_directory(target.parent)


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


def remove_stale_partials(directory: Path, *, foreign_after: float | None = None) -> int:
    """Remove partial files under `directory` whose owner is dead; returns how many.

    With `foreign_after`, what other machines made must be that many seconds old besides.
    """
    found = tuple(directory.rglob(f".*{PARTIAL}"))
    before = None
    if foreign_after is not None and not all(map(_is_local, found)):
        before = file_system_time(directory) - foreign_after
    return sum(_removed(partial, None if _is_local(partial) else before) for partial in found)


def file_system_time(directory: Path) -> float:
    """What the clock says that gives files in `directory` their times."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"now")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def remove_stale_partials_of(path: Path) -> None:
    """Remove what dead owners left of making this one file, in a directory of somebody's own."""
    digits = 2 * (_MACHINE + _RANDOM)
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{digits}}}{re.escape(PARTIAL)}")
    for partial in tuple(path.parent.iterdir()):
        if name.fullmatch(partial.name):
            with suppress(PermissionError):  # somebody else's
                _removed(partial)


@cache
def _machine() -> str:
    """This boot of this machine: as far as locks are seen on any file system."""
    try:
        boot = _BOOT_ID.read_bytes()
    except OSError:
        boot = secrets.token_bytes()  # then only this process is
    return hashlib.sha256(boot).hexdigest()[: 2 * _MACHINE]


def _is_local(partial: Path) -> bool:
    random = partial.name.removesuffix(PARTIAL).rpartition(".")[2]
    return len(random) == 2 * (_MACHINE + _RANDOM) and random.startswith(_machine())


def _removed(partial: Path, before: float | None = None) -> bool:
    # Another sweep, or the owner, may have been faster.
    # NFS, where flock is emulated, locks exclusively only what is open for writing.
    with suppress(FileNotFoundError), partial.open("rb+") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if before is not None and os.fstat(file.fileno()).st_mtime > before:
            return False
        partial.unlink()
        return True
    return False


def _create_locked(path: Path, create: Create | None) -> tuple[Path, BinaryIO]:
    while True:
        random = f"{_machine()}{secrets.token_hex(_RANDOM)}"
        partial = path.with_name(f".{path.name}.{random}{PARTIAL}")
        try:
            if create is not None and not create(partial):
                # Another name: whoever could not make this one in time may still do it.
                partial.unlink(missing_ok=True)
                create = None
                continue
            file = partial.open("xb+" if create is None else "rb+")
        except BaseException:
            if create is not None:
                partial.unlink(missing_ok=True)
            raise
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
