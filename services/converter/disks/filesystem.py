"""What a walk needs to know of a file system, whichever it is."""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from services.converter.disks.errors import DiskDamagedError
from services.converter.disks.volume import Volume
from shared.image import kinds
from shared.image.tar.writer import Xattrs

MAX_TARGET: Final = 4095
# Neither file system makes larger ones.
MAX_XATTR: Final = 65_536
# Of one file: its names alone may have 64 KiB where Linux lists them.
_MAX_XATTRS: Final = 1 << 20
# Of one file: honest ones have some thousands at worst. Bounds memory, and work.
MAX_PIECES: Final = 1 << 20


class Piece(NamedTuple):
    """Some bytes of a file that lie together, in its order and without overlaps."""

    start: int
    length: int
    place: int
    """Where they are on the volume."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an inode says; times in nanoseconds."""

    number: int
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    links: int
    device: int = 0


class Node(Protocol):
    """One inode."""

    @property
    def facts(self) -> Facts: ...

    def names(self) -> Iterator[tuple[bytes, int]]:
        """Of a directory: names, and the numbers of their inodes. Any order, "." may be there."""

    def target(self) -> bytes:
        """Of a symlink."""

    def inline(self) -> bytes | None:
        """A file's content, where that is in the inode."""

    def pieces(self) -> Iterator[Piece]:
        """A file's content; what no piece has is a hole, and the last may go beyond its end."""

    def xattrs(self) -> Xattrs: ...


class FileSystem(Protocol):
    """One of them, read only."""

    kind: str
    root: int

    @property
    def volume(self) -> Volume: ...

    def node(self, number: int) -> Node: ...

    def check_clean(self) -> None:
        """DiskUncleanError where its journal has what it has not."""


def kind_of(mode: int, number: int) -> int:
    kind = kinds.OF_MODE.get(stat.S_IFMT(mode))
    if kind is None:
        raise damaged(f"inode {number} is of no known kind, or is free")
    return kind


def collected(xattrs: Iterable[tuple[bytes, bytes]]) -> Xattrs:
    """All of one inode, if they are not too many."""
    found = []
    left = _MAX_XATTRS
    for name, value in xattrs:
        left -= len(name) + len(value)
        if left < 0:
            raise damaged(f"a file has more than {_MAX_XATTRS:,} bytes of attributes")
        found.append((name, value))
    return tuple(found)


def damaged(what: str) -> DiskDamagedError:
    return DiskDamagedError(
        f"the file system is damaged: {what}; check it (e2fsck -f, xfs_repair), or import a tar of "
        "what can be read"
    )
