"""A tar archive as named files: its members are listed once, then read where they lie."""

import os
from dataclasses import dataclass
from typing import BinaryIO, Final

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.limits import Limits
from services.converter.packing.tar_names import normalised
from services.converter.packing.tar_reader import Member, TarReader
from services.converter.sources.errors import ArchiveInvalidError, ArchiveTooLargeError
from services.converter.sources.opening import reading
from shared.image import kinds

# Images have at most some hundreds of members; who has more is no archive of images.
MAX_MEMBERS: Final = 65_536
MAX_TEXT: Final = 16 << 20
# `docker save` once wrote links from a layer to an equal one.
MAX_HOPS: Final = 8


@dataclass(frozen=True, slots=True)
class _Found:
    """One member: where its content lies, or where it points to."""

    kind: int
    offset: int
    size: int
    target: bytes


class TarFiles:
    """Reads an uncompressed archive at any place; several threads may at once."""

    def __init__(self, file: BinaryIO, called: str) -> None:
        """Takes the file over. Blocks: reads every header."""
        self.called = called
        self._file = file
        try:
            self._members = _listed(file, called)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def size(self, name: str) -> int | None:
        found = self._find(name)
        return None if found is None else found.size

    def read(self, name: str, offset: int, count: int) -> bytes:
        found = self._find(name)
        if found is None:
            return b""
        count = min(count, found.size - offset)
        if count <= 0:
            return b""
        with reading(self.called):
            return os.pread(self._file.fileno(), count, found.offset + offset)

    def _find(self, name: str) -> _Found | None:
        path = name.encode(errors="surrogateescape")
        for _ in range(MAX_HOPS):
            found = self._members.get(_path(path))
            if found is None or found.kind == kinds.FILE:
                return found
            if found.kind == kinds.SYMLINK:
                above = b"" if found.target.startswith(b"/") else path.rpartition(b"/")[0]
                path = above + b"/" + found.target
            elif found.kind == kinds.HARD_LINK:
                path = found.target
            else:
                break
        raise ArchiveInvalidError(f"{name} in {self.called} is no regular file")


class _AtPlace:
    """A tar's bytes where what nobody wants is not even read."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd = file.fileno()
        self._size = os.fstat(self._fd).st_size
        self.position = 0

    def take(self, size: int) -> bytes:
        start = self.position
        self.skip(size)
        taken = os.pread(self._fd, size, start) if size else b""
        if len(taken) != size:
            raise LayerInvalidError("became shorter while it was read")
        return taken

    def skip(self, size: int) -> None:
        if size > self._size - self.position:
            raise LayerInvalidError("ends in the middle of a member")
        self.position += size

    def skip_padding(self, size: int) -> None:
        self.position = min(self.position + size, self._size)

    def at_end(self) -> bool:
        return self.position == self._size


def _listed(file: BinaryIO, called: str) -> dict[bytes, _Found]:
    data = _AtPlace(file)
    members: dict[bytes, _Found] = {}
    count = text = 0
    try:
        with reading(called):
            for member in TarReader(data, Limits()):
                count += 1
                text += len(member.path) + len(member.target)
                if count > MAX_MEMBERS or text > MAX_TEXT:
                    raise ArchiveTooLargeError(
                        f"{called} has more members than an archive of images: if it is a root "
                        f"file system, say tar:{called}"
                    )
                # Of several members with one name the last counts, as if they had been unpacked.
                members[member.path] = _found(member, data.position)
    except LayerInvalidError as exc:
        raise ArchiveInvalidError(
            f"{called} is no archive of images, or is a damaged one: it must be a whole tar, plain "
            "or compressed with gzip or zstd"
        ) from exc
    return members


def _path(name: bytes) -> bytes:
    """What the archive knows a name by; a name that no path can have is known by none."""
    try:
        return normalised(name)
    except LayerInvalidError:
        return b""


def _found(member: Member, position: int) -> _Found:
    # Nobody writes archives of images with holes; their maps are not worth following.
    kind = kinds.DROPPED if member.sparse is not None else member.kind
    return _Found(kind, position, member.size, member.target)
