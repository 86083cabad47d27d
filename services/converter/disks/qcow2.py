"""Disks in qcow2 files, versions 2 and 3: read cluster by cluster, and never with another file."""

import zlib
from struct import Struct
from typing import Final

from services.converter.disks.errors import DiskDamagedError, DiskUnsupportedError
from services.converter.disks.volume import FileVolume, Recent, check_inside, unpacked
from shared.image.codecs import load

MAGIC: Final = b"QFI\xfb"
_FIXED: Final = Struct(">4sIQIIQIIQ")
_MORE: Final = Struct(">72xQ")
_COMPRESSION: Final = Struct(">104xB")
_HEADER: Final = 112
_ENTRY: Final = Struct(">Q")

_PLACE: Final = 0x00FFFFFFFFFFFE00
_COMPRESSED: Final = 1 << 62
_ZERO: Final = 1
_CORRUPT: Final = 0x2
_OTHER_FILE: Final = 0x4
_OTHER_CODEC: Final = 0x8
_PARTS: Final = 0x10
# That is: was not closed. Only its counts of references may be wrong, which reading does not need.
_DIRTY: Final = 0x1
_MAX_LIST: Final = 32 << 20
_TABLES_KEPT: Final = 16
_CLUSTERS_KEPT: Final = 8
_CONVERT: Final = "convert it where its other files are (qemu-img convert -O qcow2)"


class Qcow2:
    """As Volume. Used by one thread."""

    def __init__(self, file: FileVolume) -> None:
        head = file.read_padded(0, _HEADER)
        (
            _, version, backing, _, bits, size, encrypted, count, list_at,
        ) = unpacked(_FIXED, head)  # fmt: skip
        features = unpacked(_MORE, head)[0] if version > 2 else 0
        _check(version, backing, encrypted, features)
        if not 9 <= bits <= 21 or size >= 1 << 62:
            raise _damaged("has impossible clusters")
        self.size: int = size
        self._file = file
        self._bits: int = bits
        self._zeros_are_marked = version > 2
        self._zstd = bool(features & _OTHER_CODEC) and unpacked(_COMPRESSION, head)[0] == 1
        self._list = _list(file, list_at, count, -(-size // (1 << 2 * bits - 3)))
        self._tables = Recent(self._table, _TABLES_KEPT)
        self._clusters = Recent(self._expanded, _CLUSTERS_KEPT)

    def read(self, offset: int, length: int) -> bytes:
        check_inside(self.size, offset, length)
        parts = []
        cluster = 1 << self._bits
        while length:
            within = offset & cluster - 1
            here = min(length, cluster - within)
            parts.append(self._read(offset >> self._bits, within, here))
            offset += here
            length -= here
        return b"".join(parts)

    def _read(self, number: int, within: int, length: int) -> bytes:
        per_table = self._bits - 3
        table_at = unpacked(_ENTRY, self._list, (number >> per_table) * 8)[0] & _PLACE
        if not table_at:
            return bytes(length)
        table = self._tables.get(table_at)
        (entry,) = unpacked(_ENTRY, table, (number & (1 << per_table) - 1) * 8)
        if entry & _COMPRESSED:
            return self._clusters.get(entry)[within : within + length]
        place = entry & _PLACE
        if not place or (entry & _ZERO and self._zeros_are_marked):
            return bytes(length)
        if place & (1 << self._bits) - 1:
            raise _damaged("has a cluster at an impossible place")
        return self._file.read_padded(place + within, length)

    def _table(self, place: int) -> bytes:
        return self._file.read_padded(place, 1 << self._bits)

    def _expanded(self, entry: int) -> bytes:
        bits = 62 - (self._bits - 8)
        place = entry & (1 << bits) - 1
        sectors = (entry & _COMPRESSED - 1) >> bits
        packed = self._file.read_padded(place, (sectors + 1) * 512 - (place & 511))
        size = 1 << self._bits
        data = _from_zstd(packed, size) if self._zstd else _from_deflate(packed, size)
        if len(data) != size:
            raise _damaged("has a cluster that does not expand to its size")
        return data


def _check(version: int, backing: int, encrypted: int, features: int) -> None:
    if version not in {2, 3}:
        raise DiskUnsupportedError(
            f"the qcow image is of version {version}: convert it by qemu-img convert -O qcow2"
        )
    if encrypted:
        raise DiskUnsupportedError("the qcow2 image is encrypted: import a decrypted copy")
    if backing:
        raise DiskUnsupportedError(
            "the qcow2 image has only what differs from another file, its backing file, which is "
            f"not followed: {_CONVERT}"
        )
    if features & _OTHER_FILE:
        raise DiskUnsupportedError(
            f"the qcow2 image has its data in another file, which is not followed: {_CONVERT}"
        )
    if features & _CORRUPT:
        raise _damaged("says that it is corrupt")
    unknown = features & ~(_DIRTY | _OTHER_CODEC)
    if unknown:
        what = "clusters in parts" if unknown == _PARTS else f"features {unknown:#x}"
        raise DiskUnsupportedError(f"the qcow2 image has {what}, which cannot be read: {_CONVERT}")


def _list(file: FileVolume, place: int, count: int, needed: int) -> bytes:
    if needed > count or needed * 8 > _MAX_LIST:
        raise _damaged("has no room for the disk that it says to hold")
    return file.read(place, needed * 8)


def _from_deflate(packed: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(-15).decompress(packed, size)
    except zlib.error as exc:
        raise _damaged("has a cluster that cannot be expanded") from exc


def _from_zstd(packed: bytes, size: int) -> bytes:
    zstandard = load("zstandard")
    try:
        expander = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        with expander.stream_reader(packed) as stream:
            data: bytes = stream.read(size)
            return data
    except zstandard.ZstdError as exc:
        raise _damaged("has a cluster that cannot be expanded") from exc


def _damaged(what: str) -> DiskDamagedError:
    return DiskDamagedError(f"the qcow2 image {what}: check it by qemu-img check")
