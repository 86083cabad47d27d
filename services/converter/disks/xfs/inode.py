"""One inode of an XFS."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Final

from services.converter.disks.errors import DiskUnsupportedError
from services.converter.disks.filesystem import (
    MAX_TARGET,
    Facts,
    Piece,
    collected,
    damaged,
    kind_of,
)
from services.converter.disks.volume import unpacked
from services.converter.disks.xfs import attributes
from services.converter.disks.xfs.directory import INDEX_AT, names_in_block, names_in_inode
from services.converter.disks.xfs.forks import DEVICE, LOCAL, Fork
from shared.image import kinds
from shared.image.tar.writer import Xattrs

if TYPE_CHECKING:
    from services.converter.disks.xfs.filesystem import Xfs

_CORE: Final = Struct(">2sHBBHIIIHH8s8xQ8xQ12xIHBB6xH")
_V3: Final = Struct(">120xQ24xQ")
_OLD_SIZE: Final = 100
_NEW_SIZE: Final = 176
_BIG_TIME: Final = 1 << 3
_MANY_EXTENTS: Final = 1 << 4
_REALTIME: Final = 1
_SECOND: Final = 1_000_000_000
_BIG_TIME_ZERO: Final = 1 << 31
"""Seconds before 1970 at which the newer clock begins."""
_LINK_MAGIC: Final = b"XSLM"
_LINK_HEADER: Final = 56
# Of attributes, of which there is a MiB.
_MOST_EXTENTS: Final = 4096


@dataclass(frozen=True, slots=True)
class XfsNode:
    """Its two forks: data and attributes."""

    fs: "Xfs"
    facts: Facts
    data: Fork
    attributes: Fork | None
    realtime: bool

    def names(self) -> Iterator[tuple[bytes, int]]:
        found = self.fs.superblock
        if self.data.form == LOCAL:
            yield from names_in_inode(self.data.data, has_types=found.has_types)
            return
        size = found.directory_block
        per_block = size // found.block_size
        begun = bytearray()
        for extent in self.data.extents():
            if extent.start * found.block_size >= min(INDEX_AT, self.facts.size):
                break
            if extent.unwritten or (not begun and extent.start % per_block):
                raise damaged(f"directory {self.facts.number} has a block that is none")
            for number in range(extent.blocks):
                place = found.place(extent.block + number)
                begun += self.fs.volume.read(place, found.block_size)
                if len(begun) == size:
                    yield from names_in_block(bytes(begun), has_types=found.has_types)
                    begun.clear()

    def target(self) -> bytes:
        size = self.facts.size
        if self.data.form == LOCAL:
            return self.data.data[:size]
        if size > MAX_TARGET:
            raise damaged(f"inode {self.facts.number} is a link to {size:,} bytes")
        found = bytearray()
        superblock = self.fs.superblock
        for extent in self.data.extents():
            if len(found) >= size:
                break
            length = min(extent.blocks * superblock.block_size, 2 * MAX_TARGET)
            piece = self.fs.volume.read(superblock.place(extent.block), length)
            if superblock.version >= 5:
                if not piece.startswith(_LINK_MAGIC):
                    raise damaged(f"inode {self.facts.number} is a broken link")
                piece = piece[_LINK_HEADER:]
            found += piece
        return bytes(found[:size])

    def inline(self) -> bytes | None:
        """No file of an XFS is."""
        if self.data.form == LOCAL:
            raise damaged(f"file {self.facts.number} has content where none can be")
        return None

    def pieces(self) -> Iterator[Piece]:
        found = self.fs.superblock
        if self.realtime and self.facts.size:
            raise DiskUnsupportedError(
                "the XFS has files on a realtime device, which is not in this image: import a tar"
            )
        for extent in self.data.extents():
            if not extent.unwritten:
                # All of it is in one group; a place in each would be checked if it were read.
                place = found.place(extent.block)
                found.place(extent.block + extent.blocks - 1)
                size = found.block_size
                yield Piece(extent.start * size, extent.blocks * size, place)

    def xattrs(self) -> Xattrs:
        fork = self.attributes
        if fork is None:
            return ()
        if fork.form == LOCAL:
            return collected(attributes.in_inode(fork.data))
        extents = list(islice(fork.extents(), _MOST_EXTENTS))
        if not extents:
            return ()
        found = self.fs.superblock

        def read(block: int) -> bytes:
            for extent in extents:
                if extent.start <= block < extent.start + extent.blocks:
                    place = found.place(extent.block + block - extent.start)
                    return self.fs.volume.read(place, found.block_size)
            raise damaged(f"inode {self.facts.number} has broken attributes")

        return collected(attributes.in_blocks(read, checked=found.version >= 5))


def parsed(fs: "Xfs", number: int, raw: bytes) -> XfsNode:
    (
        magic, mode, version, form, old_links, uid, gid, links, _, _, many, mtime, size,
        extents, attribute_extents, fork_at, attribute_form, flags,
    ) = unpacked(_CORE, raw)  # fmt: skip
    if magic != b"IN" or not 1 <= version <= 3:
        raise damaged(f"there is no inode {number}")
    flags2, core, attribute_count = 0, _OLD_SIZE, attribute_extents
    if version == 3:
        core = _NEW_SIZE
        flags2, own = unpacked(_V3, raw)
        if own != number:
            raise damaged(f"inode {number} says that it is another")
    if flags2 & _MANY_EXTENTS:
        extents, attribute_count = int.from_bytes(many, "big"), extents
    kind = kind_of(mode, number)
    literal = raw[core:]
    split = fork_at * 8 if fork_at else len(literal)
    data = Fork(fs.volume, fs.superblock, number, form, extents, literal[:split])
    more = literal[split:]
    special = kind in kinds.DEVICES
    if special and form != DEVICE:
        raise damaged(f"inode {number} is a device without a number")
    facts = Facts(
        number=number,
        kind=kind,
        mode=mode & 0o7777,
        uid=uid,
        gid=gid,
        mtime=_time(mtime, big=bool(flags2 & _BIG_TIME)),
        size=size,
        links=old_links if version == 1 else links,
        device=_device(literal) if special else 0,
    )
    fork = Fork(fs.volume, fs.superblock, number, attribute_form, attribute_count, more)
    return XfsNode(fs, facts, data, fork if fork_at else None, bool(flags & _REALTIME))


def _time(stamp: int, *, big: bool) -> int:
    if big:
        return stamp - _BIG_TIME_ZERO * _SECOND
    seconds, rest = stamp >> 32, stamp & 0xFFFFFFFF
    return (seconds - (seconds >> 31 << 32)) * _SECOND + min(rest, _SECOND - 1)


def _device(literal: bytes) -> int:
    number = int.from_bytes(literal[:4], "big")
    return os.makedev(number >> 18 & 0xFFF, number & 0x3FFFF)
