"""A directory on disk as named files: an OCI layout that was not packed into an archive."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.converter.sources.errors import ArchiveInvalidError
from services.converter.sources.opening import open_regular, reading

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_NAMES = frozenset({"", ".", ".."})


class DirectoryFiles:
    """Opens each file anew, step by step from the root, and follows no link on the way."""

    def __init__(self, path: Path) -> None:
        self.called = str(path)
        with reading(path):
            self._root = os.open(path, _DIRECTORY)

    def close(self) -> None:
        os.close(self._root)

    def size(self, name: str) -> int | None:
        with reading(f"{name} in {self.called}"):
            try:
                with self._opened(name) as fd:
                    return os.fstat(fd).st_size
            except FileNotFoundError:
                return None

    def read(self, name: str, offset: int, count: int) -> bytes:
        with reading(f"{name} in {self.called}"), self._opened(name) as fd:
            return os.pread(fd, count, offset)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        *parents, last = parts = name.split("/")
        if not _NO_NAMES.isdisjoint(parts):
            raise FileNotFoundError(name)
        opened = [os.dup(self._root)]
        try:
            try:
                for parent in parents:
                    opened.append(os.open(parent, _DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
                opened.append(open_regular(last, within=opened[-1]))
            except OSError as exc:
                # A symlink; of one where a directory should be the kernel says only that.
                if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
                    raise ArchiveInvalidError(
                        f"{name} in {self.called} leads over a link or a file instead of a "
                        "directory, which is not followed: copy the layout with links resolved"
                    ) from exc
                raise
            yield opened[-1]
        finally:
            for fd in opened:
                os.close(fd)
