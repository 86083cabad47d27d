"""Inodes, basic and extended, of any kind."""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.image import kinds
from shared.image.errors import ImageCorruptError
from shared.image.kinds import METADATA_BLOCK
from shared.image.reading.metadata import Cursor, LookupTable, Stream

_COMMON = struct.Struct("<HHHHII")
_FILE = struct.Struct("<IIII")
_EXTENDED_FILE = struct.Struct("<QQQIIII")
_DIRECTORY = struct.Struct("<IIHHI")
_EXTENDED_DIRECTORY = struct.Struct("<IIIIHHI")
_MAX_TARGET: Final = 4095
_MAX_FILE: Final = (1 << 63) - 1
_MODE_BITS: Final = 0o7777


@dataclass(slots=True)
class Inode:
    """One inode, with the details that its kind has."""

    # Where it is in the inode table: two names of one reference are hard links.
    reference: int
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    number: int
    links: int = 1
    size: int = 0
    target: bytes = b""
    device: int = 0
    # The row of its set of extended attributes.
    xattrs: int = kinds.NO_XATTRS
    # Of a file: where its first block is, and its offset in its fragment. Of a directory: where
    # its listing is, as block and offset.
    start: int = 0
    offset: int = 0
    fragment: int = kinds.NO_FRAGMENT
    # Of a file: the bytes that its holes have.
    sparse: int = 0
    # Of a directory: its parent's inode number.
    parent: int = 0
    # A file's list of blocks or a directory's index follows the inode, and may be as long as it
    # likes: where it is, and how many items it has.
    list_place: tuple[int, int] = (0, 0)
    list_length: int = 0


def read_inode(inodes: Stream, ids: LookupTable, block_size: int, reference: int) -> Inode:
    cursor = inodes.at_reference(reference)
    kind, mode, uid, gid, mtime, number = cursor.unpack(_COMMON)
    extended = kind > kinds.EXTENDED
    inode = Inode(
        reference=reference,
        kind=kind - kinds.EXTENDED if extended else kind,
        mode=mode & _MODE_BITS,
        uid=int.from_bytes(ids.row(uid), "little"),
        gid=int.from_bytes(ids.row(gid), "little"),
        mtime=mtime,
        number=number,
    )
    if inode.kind == kinds.DIRECTORY:
        _read_directory(cursor, inode, extended=extended)
    elif inode.kind == kinds.FILE:
        _read_file(cursor, inode, block_size, extended=extended)
    elif kinds.SYMLINK <= inode.kind <= kinds.SOCKET:
        _read_other(cursor, inode, extended=extended)
    else:
        raise ImageCorruptError(f"the image has an inode of unknown type {kind}")
    return inode


def read_block_sizes(inodes: Stream, file: Inode) -> Iterator[int]:
    """A file's blocks, as their sizes on disk; too long a list ends with the table, in an error."""
    left = file.list_length
    if not left:
        return
    cursor = inodes.resume(file.list_place)
    while left:
        part = min(left, METADATA_BLOCK // 4)
        yield from array("I", cursor.read(4 * part))
        left -= part


def _read_directory(cursor: Cursor, inode: Inode, *, extended: bool) -> None:
    if extended:
        (
            inode.links,
            inode.size,
            inode.start,
            inode.parent,
            inode.list_length,
            inode.offset,
            inode.xattrs,
        ) = cursor.unpack(_EXTENDED_DIRECTORY)
        inode.list_place = cursor.place
    else:
        inode.start, inode.links, inode.size, inode.offset, inode.parent = cursor.unpack(_DIRECTORY)


def _read_file(cursor: Cursor, inode: Inode, block_size: int, *, extended: bool) -> None:
    if extended:
        (
            inode.start,
            inode.size,
            inode.sparse,
            inode.links,
            inode.fragment,
            inode.offset,
            inode.xattrs,
        ) = cursor.unpack(_EXTENDED_FILE)
    else:
        inode.start, inode.fragment, inode.offset, inode.size = cursor.unpack(_FILE)
    if inode.size > _MAX_FILE:
        raise ImageCorruptError("the image has a file of impossible size")
    inode.list_length, tail = divmod(inode.size, block_size)
    if inode.fragment == kinds.NO_FRAGMENT and tail:
        inode.list_length += 1
    inode.list_place = cursor.place


def _read_other(cursor: Cursor, inode: Inode, *, extended: bool) -> None:
    inode.links = cursor.number()
    if inode.kind == kinds.SYMLINK:
        inode.size = cursor.number()
        if not 0 < inode.size <= _MAX_TARGET:
            raise ImageCorruptError("the image has a symlink whose target is no path")
        inode.target = cursor.read(inode.size)
        if b"\0" in inode.target:
            raise ImageCorruptError("the image has a symlink whose target is no path")
    elif inode.kind in kinds.DEVICES:
        inode.device = cursor.number()
    if extended:
        inode.xattrs = cursor.number()
