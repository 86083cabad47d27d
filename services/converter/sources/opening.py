"""Opens what a user named: regular files only, nothing that could block or act when opened."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.converter.sources.errors import ArchiveInvalidError, ArchiveNotFoundError


@contextmanager
def reading(called: object) -> Iterator[None]:
    """Errors of the body's file system calls say what cannot be read."""
    try:
        yield
    except FileNotFoundError as exc:
        raise ArchiveNotFoundError(f"there is no {called}: check the path") from exc
    except OSError as exc:
        raise ArchiveNotFoundError(f"{called} cannot be read: {exc.strerror or exc}") from exc


def open_regular(path: str | Path, *, within: int | None = None) -> int:
    """A descriptor to read `path`; below the directory `within` no symlink is followed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if within is not None:
        flags |= os.O_NOFOLLOW
    fd = os.open(path, flags, dir_fd=within)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ArchiveInvalidError(f"{path} is no regular file: name an archive or a layout")
    return fd
