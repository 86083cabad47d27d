"""Where an OCI layout is written: a directory, or one tar. Names come from us alone."""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

_BLOBS: Final = "blobs/sha256"
_UNFINISHED: Final = "unfinished"
_BLOCK: Final = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Blob:
    """What was written."""

    digest: str
    size: int


Fill = Callable[[BinaryIO], Blob]


class Place(Protocol):
    """Takes a layout, file by file."""

    def blob(self, fill: Fill) -> Blob:
        """What `fill` writes, under the name that only its end tells."""

    def add(self, name: str, content: bytes) -> None: ...


def add_blob(place: Place, content: bytes) -> Blob:
    digest = hashlib.sha256(content).hexdigest()
    place.add(f"{_BLOBS}/{digest}", content)
    return Blob(f"sha256:{digest}", len(content))


class DirectoryPlace:
    """A directory that nobody else writes to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / _BLOBS).mkdir(parents=True)

    def blob(self, fill: Fill) -> Blob:
        unfinished = self._root / _BLOBS / _UNFINISHED
        with _new(unfinished) as file:
            blob = fill(file)
        unfinished.rename(unfinished.with_name(blob.digest.removeprefix("sha256:")))
        return blob

    def add(self, name: str, content: bytes) -> None:
        with _new(self._root / name) as file:
            file.write(content)


class ArchivePlace:
    """A tar in a file, which is written from its beginning; `finish` ends it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        for name in ("blobs", _BLOBS):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            file.write(_header(folder))

    def blob(self, fill: Fill) -> Blob:
        """Its header is written when it is known."""
        start = self._file.tell()
        self._file.seek(start + _BLOCK)
        blob = fill(self._file)
        self._file.write(bytes(-blob.size % _BLOCK))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_file_header(f"{_BLOBS}/{blob.digest.removeprefix('sha256:')}", blob.size))
        self._file.seek(end)
        return blob

    def add(self, name: str, content: bytes) -> None:
        padding = bytes(-len(content) % _BLOCK)
        self._file.write(_file_header(name, len(content)) + content + padding)

    def finish(self) -> None:
        self._file.write(bytes(2 * _BLOCK))


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _file_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return _header(info)


def _header(info: tarfile.TarInfo) -> bytes:
    """One block, however large the file is; the owner is root and the time 0."""
    header = info.tobuf(tarfile.GNU_FORMAT)
    assert len(header) == _BLOCK
    return header
