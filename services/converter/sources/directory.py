"""A directory on disk as named files: an OCI layout that was not packed into an archive."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.converter.sources.opening import reading
from services.converter.user_files.interface import UserFiles


class DirectoryFiles:
    """Opens each file anew, step by step from the root, and follows no link on the way."""

    def __init__(self, path: Path, files: UserFiles) -> None:
        self.called = str(path)
        self._files = files
        with reading(path):
            self._root = files.open_directory(path)

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
        fd = self._files.open_file(name, within=self._root)
        try:
            yield fd
        finally:
            os.close(fd)
