"""Squashfs' metadata, read back: inodes, directory listings, the small tables.

An image may be damaged or hostile: every position is checked before it is followed.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Final

from shared.image import kinds
from shared.image.codecs import BlockCodec
from shared.image.errors import ImageCorruptError
from shared.image.kinds import METADATA_BLOCK, RAW_METADATA
from shared.image.superblock import Superblock

_COMMON = struct.Struct("<HHHHII")
_FILE = struct.Struct("<IIII")
_EXTENDED_FILE = struct.Struct("<QQQIIII")
_DIRECTORY = struct.Struct("<IIHHI")
_EXTENDED_DIRECTORY = struct.Struct("<IIIIHHI")
_HEADER = struct.Struct("<IIi")
_ENTRY = struct.Struct("<HhHH")
_MAX_TARGET: Final = 4095
_CACHED_BLOCKS: Final = 256


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
    # Of a file: where its first block is, and its offset in its fragment. Of a directory: where
    # its listing is.
    start: int = 0
    offset: int = 0
    fragment: int = kinds.NO_FRAGMENT
    # The place of a file's list of blocks, which may be as long as it likes, and its length.
    blocks: tuple[int, int] = (0, 0)
    block_count: int = 0


class Metadata:
    """Random access to metadata blocks, the latest of them kept."""

    def __init__(self, file: BinaryIO, codec: BlockCodec, superblock: Superblock) -> None:
        self._file = file
        self._codec = codec
        self._end = superblock.bytes_used
        self.block = lru_cache(maxsize=_CACHED_BLOCKS)(self._read_block)

    def cursor(self, position: int, offset: int) -> "Cursor":
        return Cursor(self, position, offset)

    def lookup(self, table: int, row: int, row_size: int) -> bytes:
        """One row of a table that has an index of blocks at `table`."""
        at = row * row_size
        block, offset = at // METADATA_BLOCK, at % METADATA_BLOCK
        (position,) = struct.unpack("<Q", self.raw(table + 8 * block, 8))
        return self.cursor(position, offset).read(row_size)

    def raw(self, position: int, size: int) -> bytes:
        if position + size > self._end:
            raise ImageCorruptError("the image refers to a place behind its end")
        self._file.seek(position)
        data = self._file.read(size)
        if len(data) != size:
            raise ImageCorruptError("the image is shorter than it says")
        return data

    def _read_block(self, position: int) -> tuple[bytes, int]:
        """The content of the block at `position`, and where the next one is."""
        (size,) = struct.unpack("<H", self.raw(position, 2))
        stored = size & (RAW_METADATA - 1)
        data = self.raw(position + 2, stored)
        if not size & RAW_METADATA:
            data = self._codec.decompress(data, METADATA_BLOCK)
        if not 0 < len(data) <= METADATA_BLOCK:
            raise ImageCorruptError("the image has a metadata block of impossible size")
        return data, position + 2 + stored


class Cursor:
    """Reads on from a place in a stream of metadata blocks."""

    def __init__(self, metadata: Metadata, position: int, offset: int) -> None:
        self._metadata = metadata
        self._position = position
        self._block, self._next = metadata.block(position)
        self._offset = offset

    @property
    def place(self) -> tuple[int, int]:
        """What a cursor is made with that is to go on from here."""
        return self._position, self._offset

    def read(self, size: int) -> bytes:
        data = self._block[self._offset : self._offset + size]
        self._offset += size
        while len(data) < size:
            self._position = self._next
            self._block, self._next = self._metadata.block(self._position)
            missing = size - len(data)
            data += self._block[:missing]
            self._offset = missing
        return data

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.read(layout.size))

    def number(self) -> int:
        return int.from_bytes(self.read(4), "little")


def read_inode(metadata: Metadata, superblock: Superblock, reference: int) -> Inode:
    cursor = metadata.cursor(superblock.inode_table + (reference >> 16), reference & 0xFFFF)
    kind, mode, uid, gid, mtime, number = cursor.unpack(_COMMON)
    extended = kind > kinds.EXTENDED
    inode = Inode(
        reference=reference,
        kind=kind - kinds.EXTENDED if extended else kind,
        mode=mode,
        uid=_id(metadata, superblock, uid),
        gid=_id(metadata, superblock, gid),
        mtime=mtime,
        number=number,
    )
    if inode.kind == kinds.DIRECTORY:
        _read_directory(cursor, inode, extended=extended)
    elif inode.kind == kinds.FILE:
        _read_file(cursor, inode, superblock, extended=extended)
    elif kinds.SYMLINK <= inode.kind <= kinds.SOCKET:
        _read_other(cursor, inode)
    else:
        raise ImageCorruptError(f"the image has an inode of unknown type {kind}")
    return inode


def read_listing(
    metadata: Metadata, superblock: Superblock, directory: Inode
) -> Iterator[tuple[bytes, int]]:
    """Names and inode references, in order."""
    left = directory.size - 3
    if left <= 0:
        return
    cursor = metadata.cursor(superblock.directory_table + directory.start, directory.offset)
    while left > 0:
        count, block, _ = cursor.unpack(_HEADER)
        left -= _HEADER.size
        if count >= 256:
            raise ImageCorruptError("the image has a directory run of impossible length")
        for _ in range(count + 1):
            offset, _, _, length = cursor.unpack(_ENTRY)
            name = cursor.read(length + 1)
            left -= _ENTRY.size + len(name)
            if name in {b".", b".."} or b"/" in name or b"\0" in name or len(name) > 255:
                raise ImageCorruptError(f"the image has a file of impossible name {name[:60]!r}")
            yield name, block << 16 | offset


def read_blocks(metadata: Metadata, inode: Inode) -> Iterator[int]:
    """A file's blocks, as their sizes on disk; a size that lies is found out by the table's end."""
    if not inode.block_count:
        return
    cursor = metadata.cursor(*inode.blocks)
    left = inode.block_count
    while left:
        part = min(left, METADATA_BLOCK // 4)
        yield from array("I", cursor.read(4 * part))
        left -= part


def _id(metadata: Metadata, superblock: Superblock, row: int) -> int:
    if row >= superblock.ids:
        raise ImageCorruptError("the image has an inode with an unknown owner")
    return int.from_bytes(metadata.lookup(superblock.id_table, row, 4), "little")


def _read_directory(cursor: Cursor, inode: Inode, *, extended: bool) -> None:
    if extended:
        inode.links, inode.size, inode.start, _, _, inode.offset, _ = cursor.unpack(
            _EXTENDED_DIRECTORY
        )
    else:
        inode.start, inode.links, inode.size, inode.offset, _ = cursor.unpack(_DIRECTORY)


def _read_file(cursor: Cursor, inode: Inode, superblock: Superblock, *, extended: bool) -> None:
    if extended:
        inode.start, inode.size, _, inode.links, inode.fragment, inode.offset, _ = cursor.unpack(
            _EXTENDED_FILE
        )
    else:
        inode.start, inode.fragment, inode.offset, inode.size = cursor.unpack(_FILE)
    inode.block_count = inode.size // superblock.block_size
    if inode.fragment == kinds.NO_FRAGMENT and inode.size % superblock.block_size:
        inode.block_count += 1
    inode.blocks = cursor.place


def _read_other(cursor: Cursor, inode: Inode) -> None:
    inode.links = cursor.number()
    if inode.kind == kinds.SYMLINK:
        inode.size = cursor.number()
        inode.target = cursor.read(min(inode.size, _MAX_TARGET + 1))
        if not 0 < inode.size <= _MAX_TARGET or b"\0" in inode.target:
            raise ImageCorruptError("the image has a symlink whose target is no path")
    elif inode.kind in {kinds.BLOCK_DEVICE, kinds.CHARACTER_DEVICE}:
        inode.device = cursor.number()
