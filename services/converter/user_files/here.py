"""Opens files with the rights that this very process has."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from services.converter.sources.errors import ArchiveInvalidError
from services.converter.sources.opening import open_regular

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NO_NAMES: Final = frozenset({"", ".", ".."})


def open_file(path: str | Path, within: int | None) -> int:
    """A descriptor of a regular file; within a directory, down from it and over no link."""
    if within is None:
        return open_regular(path)
    with _parent(str(path), within) as (name, parent):
        return open_regular(name, within=parent)


def open_directory(path: str | Path, within: int | None) -> int:
    """The same of a directory."""
    if within is None:
        return os.open(path, _DIRECTORY)
    with _parent(str(path), within) as (name, parent):
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


@contextmanager
def _parent(path: str, within: int) -> Iterator[tuple[str, int]]:
    """The last name of a path, and the directory that it is in, step by step."""
    *parents, last = names = path.split("/")
    if not _NO_NAMES.isdisjoint(names):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    with ExitStack() as opened:
        try:
            for name in parents:
                within = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
                opened.callback(os.close, within)
            yield last, within
        except OSError as exc:
            # A symlink; of one where a directory should be the kernel says only that.
            if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise ArchiveInvalidError(
                    f"{path} leads over a link or a file instead of a directory, which is not "
                    "followed: copy the directory with links resolved"
                ) from exc
            raise
