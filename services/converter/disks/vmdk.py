"""Disks in single vmdk files: sparse ones, and those of OVA archives, which are compressed."""

import re
import zlib
from struct import Struct
from typing import Final

from services.converter.disks.errors import DiskDamagedError, DiskUnsupportedError
from services.converter.disks.volume import SECTOR, FileVolume, Recent, check_inside, unpacked

MAGIC: Final = b"KDMV"
TEXT: Final = b"# Disk DescriptorFile"
_HEADER: Final = Struct("<4sIIQQQQIQQQ5xH")
_ENTRY: Final = Struct("<I")
_GRAIN: Final = Struct("<QI")
_ZEROS_ARE_MARKED: Final = 1 << 2
_COMPRESSED: Final = 1 << 16
_AT_THE_END: Final = (1 << 64) - 1
_FOOTER: Final = 1024
_MAX_DESCRIPTOR: Final = 1 << 20
_MAX_GRAIN: Final = 4096
_MAX_ENTRIES: Final = 4096
_MAX_LIST: Final = 32 << 20
_TABLES_KEPT: Final = 64
_GRAINS_KEPT: Final = 16
_DEFLATE: Final = 1
_PART: Final = re.compile(rb"^\s*(RW|RDONLY|NOACCESS)\s", re.MULTILINE)
_PARENT: Final = re.compile(rb"^\s*parentCID\s*=\s*([0-9a-fA-F]+)", re.MULTILINE)
_NO_PARENT: Final = b"ffffffff"
_CONVERT: Final = "convert it where its other files are (qemu-img convert -O qcow2)"


class Vmdk:
    """As Volume. Used by one thread."""

    def __init__(self, file: FileVolume) -> None:
        if file.read_padded(0, len(TEXT)) == TEXT:
            raise DiskUnsupportedError(
                "the vmdk file is only a description, and the disk is in other files, which are "
                f"not followed: {_CONVERT}"
            )
        head = file.read(0, SECTOR)
        if unpacked(_HEADER, head)[9] == _AT_THE_END:
            head = file.read(file.size - _FOOTER, SECTOR)
        (
            magic, version, flags, capacity, grain, description_at, description_size,
            entries, _, list_at, _, codec,
        ) = unpacked(_HEADER, head)  # fmt: skip
        possible = (
            magic == MAGIC
            and 1 <= grain <= _MAX_GRAIN
            and not grain & grain - 1
            and 1 <= entries <= _MAX_ENTRIES
            and 0 < capacity < 1 << 53
        )
        if not possible or list_at == _AT_THE_END:
            raise _damaged("has a header that contradicts itself")
        if version not in {1, 2, 3} or (flags & _COMPRESSED and codec != _DEFLATE):
            raise DiskUnsupportedError(
                "the vmdk image is of a kind that cannot be read: convert it by "
                "qemu-img convert -O qcow2"
            )
        _check_description(file, description_at * SECTOR, description_size * SECTOR)
        self.size: int = capacity * SECTOR
        self._file = file
        self._grain: int = grain * SECTOR
        self._entries: int = entries
        self._compressed = bool(flags & _COMPRESSED)
        self._zeros_are_marked = bool(flags & _ZEROS_ARE_MARKED)
        tables = -(-capacity // (grain * entries))
        if tables * 4 > _MAX_LIST:
            raise _damaged("has too many tables")
        self._list = file.read(list_at * SECTOR, tables * 4)
        self._tables = Recent(self._table, _TABLES_KEPT)
        self._grains = Recent(self._expanded, _GRAINS_KEPT)

    def read(self, offset: int, length: int) -> bytes:
        check_inside(self.size, offset, length)
        parts = []
        while length:
            number, within = divmod(offset, self._grain)
            here = min(length, self._grain - within)
            parts.append(self._read(number, within, here))
            offset += here
            length -= here
        return b"".join(parts)

    def _read(self, number: int, within: int, length: int) -> bytes:
        table, index = divmod(number, self._entries)
        (table_at,) = unpacked(_ENTRY, self._list, table * 4)
        if not table_at:
            return bytes(length)
        (place,) = unpacked(_ENTRY, self._tables.get(table_at), index * 4)
        if not place or (place == 1 and self._zeros_are_marked):
            return bytes(length)
        if self._compressed:
            return self._grains.get(place)[within : within + length]
        return self._file.read_padded(place * SECTOR + within, length)

    def _table(self, sector: int) -> bytes:
        return self._file.read(sector * SECTOR, self._entries * 4)

    def _expanded(self, sector: int) -> bytes:
        at = sector * SECTOR
        _, size = unpacked(_GRAIN, self._file.read(at, _GRAIN.size))
        if not 0 < size <= 2 * self._grain + SECTOR:
            raise _damaged("has a grain of an impossible size")
        packed = self._file.read(at + _GRAIN.size, size)
        try:
            data = zlib.decompressobj().decompress(packed, self._grain)
        except zlib.error as exc:
            raise _damaged("has a grain that cannot be expanded") from exc
        return data.ljust(self._grain, b"\0")  # the last one of a disk may be shorter


def _check_description(file: FileVolume, at: int, size: int) -> None:
    if size > _MAX_DESCRIPTOR:
        raise _damaged("has too long a description")
    text = file.read(at, size)
    parent = _PARENT.search(text)
    if parent is not None and parent[1].lower() != _NO_PARENT:
        raise DiskUnsupportedError(
            "the vmdk image has only what differs from another file, which is not followed: "
            f"{_CONVERT}"
        )
    files = len(_PART.findall(text))
    if not files:
        raise DiskUnsupportedError(f"the vmdk file is a part of a disk: {_CONVERT}")
    if files > 1:
        raise DiskUnsupportedError(
            f"the vmdk image has its data in several files, which are not followed: {_CONVERT}"
        )


def _damaged(what: str) -> DiskDamagedError:
    return DiskDamagedError(f"the vmdk image {what}: check it by qemu-img check")
