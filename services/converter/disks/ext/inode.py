"""One inode of an ext file system."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from struct import Struct
from typing import TYPE_CHECKING, Final

from services.converter.disks.errors import DiskUnsupportedError
from services.converter.disks.ext import xattrs as attributes
from services.converter.disks.ext.directory import names_in
from services.converter.disks.ext.mapping import block_lists, extents
from services.converter.disks.filesystem import (
    MAX_TARGET,
    MAX_XATTR,
    Facts,
    Piece,
    collected,
    damaged,
    kind_of,
)
from services.converter.disks.volume import sliced, unpacked
from shared.image import kinds
from shared.image.tar.writer import Xattrs

if TYPE_CHECKING:
    from services.converter.disks.ext.filesystem import Ext

_BASE: Final = Struct("<HHIIIiIHH4xI4x60s4xIIIHHHH")
_EXTRA: Final = Struct("<HHII")
_OLD: Final = 128
_DEVICES: Final = Struct("<II")
_COMPRESSED: Final = 0x4
_ENCRYPTED: Final = 0x800
_EXTENTS: Final = 0x80000
_XATTR_INODE: Final = 0x200000
_INLINE: Final = 0x10000000
_INLINE_NAME: Final = b"system.data"
_SECOND: Final = 1_000_000_000
_FAST: Final = 60


@dataclass(frozen=True, slots=True)
class ExtNode:
    """`raw` is all of it, with what may stand behind."""

    fs: "Ext"
    facts: Facts
    flags: int
    map: bytes
    xattr_block: int
    xattrs_at: int
    raw: bytes

    def names(self) -> Iterator[tuple[bytes, int]]:
        inline = self.inline()
        if inline is not None:
            yield from names_in(inline[4:_FAST])  # the first four bytes are its parent
            yield from names_in(inline[_FAST:])
            return
        block = self.fs.block_size
        for piece in self.pieces():
            if piece.start >= self.facts.size:
                return
            length = min(piece.length, self.facts.size - piece.start)
            for at in range(piece.place, piece.place + length, block):
                yield from names_in(self.fs.volume.read(at, block))

    def target(self) -> bytes:
        self._check_readable()
        size = self.facts.size
        inline = self.inline()
        if inline is not None:
            return inline[:size]
        if size < _FAST:
            return self.map[:size]
        if size > MAX_TARGET:
            raise damaged(f"inode {self.facts.number} is a link to {size:,} bytes")
        return self.content(MAX_TARGET)[:size]

    def inline(self) -> bytes | None:
        if not self.flags & _INLINE:
            return None
        data = self.map
        for each in self._inside():
            if each.name == _INLINE_NAME:
                data += each.value
        if self.facts.kind != kinds.DIRECTORY and len(data) < self.facts.size:
            raise damaged(f"inode {self.facts.number} has not the data that it says")
        return data[: self.facts.size]

    def pieces(self) -> Iterator[Piece]:
        self._check_readable()
        number = self.facts.number
        if self.flags & _EXTENTS:
            return extents(self.fs, self.map, number)
        return block_lists(self.fs, self.map, number, self.facts.size)

    def content(self, most: int) -> bytes:
        """Of a short one, without holes; at most so many bytes, and whole blocks."""
        found = bytearray()
        for piece in self.pieces():
            if piece.start != len(found) or len(found) >= most:
                break
            found += self.fs.volume.read(piece.place, min(piece.length, most - len(found)))
        return bytes(found)

    def xattrs(self) -> Xattrs:
        return collected(
            (each.name, self._value_in(each) if each.inode else each.value)
            for each in chain(self._inside(), self._in_block())
            if each.name != _INLINE_NAME
        )

    def _inside(self) -> Iterator[attributes.Found]:
        at = self.xattrs_at
        if self.raw[at : at + 4] == attributes.MAGIC:
            yield from attributes.entries(self.raw, at + 4, at + 4)

    def _in_block(self) -> Iterator[attributes.Found]:
        if self.xattr_block:
            block = self.fs.block(self.xattr_block)
            if not block.startswith(attributes.MAGIC):
                raise damaged(f"inode {self.facts.number} has broken attributes")
            yield from attributes.entries(block, attributes.BLOCK_HEADER, 0)

    def _value_in(self, found: attributes.Found) -> bytes:
        """A large value has an inode of its own."""
        if found.size > MAX_XATTR:
            raise damaged(f"inode {self.facts.number} has an attribute of {found.size:,} bytes")
        holder = self.fs.node(found.inode)
        if not holder.flags & _XATTR_INODE:
            raise damaged(f"inode {found.inode} is no attribute")
        return sliced(holder.content(found.size), 0, found.size)

    def _check_readable(self) -> None:
        what = "compressed" if self.flags & _COMPRESSED else "encrypted"
        if self.flags & (_COMPRESSED | _ENCRYPTED):
            raise DiskUnsupportedError(
                f"the file system has files that are {what}: decrypt or expand them where they "
                "are mounted, or import a tar of it"
            )


def parsed(fs: "Ext", number: int, raw: bytes) -> ExtNode:
    (
        mode, uid, size, _, _, mtime, _, gid, links, flags, where, acl, size_high, _, _,
        acl_high, uid_high, gid_high,
    ) = unpacked(_BASE, raw)  # fmt: skip
    kind = kind_of(mode, number)
    size |= size_high << 32
    extra_size, _, _, mtime_extra = unpacked(_EXTRA, raw, _OLD) if len(raw) > _OLD else (0,) * 4
    extra = mtime_extra if extra_size >= _EXTRA.size else 0
    seconds = mtime + ((extra & 3) << 32)
    if _OLD + extra_size > len(raw) or extra_size % 4:
        raise damaged(f"inode {number} has an impossible size")
    return ExtNode(
        fs,
        Facts(
            number=number,
            kind=kind,
            mode=mode & 0o7777,
            uid=uid | uid_high << 16,
            gid=gid | gid_high << 16,
            mtime=seconds * _SECOND + min(extra >> 2, _SECOND - 1),
            size=size,
            links=links,
            device=_device(where) if kind in kinds.DEVICES else 0,
        ),
        flags=flags,
        map=where,
        xattr_block=acl | acl_high << 32,
        xattrs_at=_OLD + extra_size if extra_size else len(raw),
        raw=raw,
    )


def _device(where: bytes) -> int:
    old, new = unpacked(_DEVICES, where)
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
