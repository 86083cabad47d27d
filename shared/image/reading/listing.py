"""Directory listings, read back: in order, or by the index of large ones."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from shared.image.errors import ImageCorruptError
from shared.image.kinds import METADATA_BLOCK
from shared.image.reading.inode import Inode
from shared.image.reading.metadata import Cursor, Stream

_HEADER = struct.Struct("<IIi")
_ENTRY = struct.Struct("<HhHH")
_POINT = struct.Struct("<III")
_MAX_RUN: Final = 256
_MAX_NAME: Final = 255
# Readers count "." and ".." as three bytes of every listing.
_LISTING_EXTRA: Final = 3


class Entry(NamedTuple):
    """A name in a directory, and what the directory says of the inode behind it."""

    name: bytes
    reference: int
    kind: int
    number: int


class IndexPoint(NamedTuple):
    """From here on a listing has `name` and what follows it."""

    position: int
    block: int
    name: bytes


def read_listing(
    directories: Stream, directory: Inode, point: IndexPoint | None = None
) -> Iterator[Entry]:
    """The entries, all of them or from an index point on; their names ascend."""
    size = directory.size - _LISTING_EXTRA
    if size <= 0:
        return iter(())
    if point is None:
        return _entries(directories.at(directory.start, directory.offset), size)
    offset = (directory.offset + point.position) % METADATA_BLOCK
    return _entries(directories.at(point.block, offset), size - point.position)


def read_index(inodes: Stream, directory: Inode) -> Iterator[IndexPoint]:
    if not directory.list_length:
        return
    cursor = inodes.resume(directory.list_place)
    for _ in range(directory.list_length):
        position, block, length = cursor.unpack(_POINT)
        if length >= _MAX_NAME or position >= directory.size - _LISTING_EXTRA:
            raise ImageCorruptError("the image has a directory whose index leads nowhere")
        yield IndexPoint(position, block, cursor.read(length + 1))


def find_entry(inodes: Stream, directories: Stream, directory: Inode, name: bytes) -> Entry | None:
    """The entry `name`; of a listing with an index about one metadata block is read."""
    begin = None
    for point in read_index(inodes, directory):
        if point.name > name:
            break
        begin = point
    for entry in read_listing(directories, directory, begin):
        if entry.name >= name:
            return entry if entry.name == name else None
    return None


def _entries(cursor: Cursor, left: int) -> Iterator[Entry]:
    latest = b""
    while left > 0:
        count, block, base = cursor.unpack(_HEADER)
        left -= _HEADER.size
        if count >= _MAX_RUN:
            raise ImageCorruptError("the image has a directory run of impossible length")
        for _ in range(count + 1):
            offset, delta, kind, length = cursor.unpack(_ENTRY)
            if length >= _MAX_NAME:
                raise ImageCorruptError("the image has a file of impossible name: it is too long")
            name = cursor.read(length + 1)
            left -= _ENTRY.size + len(name)
            if name in {b".", b".."} or b"/" in name or b"\0" in name:
                raise ImageCorruptError(f"the image has a file of impossible name {name[:60]!r}")
            if name <= latest:
                raise ImageCorruptError(f"the image has {name!r} out of order, or twice")
            latest = name
            yield Entry(name, block << 16 | offset, kind, base + delta)
    if left:
        raise ImageCorruptError("the image has a directory that is longer than it says")
