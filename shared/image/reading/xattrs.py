"""Extended attributes, read back: sets of them, of which any number of inodes may have one."""

import struct
from functools import lru_cache
from typing import Final

from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.kinds import XATTR_PREFIXES
from shared.image.reading.metadata import LookupTable, Metadata, Stream
from shared.image.squashfs.superblock import ABSENT

_HEADER = struct.Struct("<QII")
_SET = struct.Struct("<QII")
_KEY = struct.Struct("<HH")
# A value that occurs often stands in one place only: 8 bytes say where.
_OUT_OF_LINE: Final = 0x100
_REFERENCE_SIZE: Final = 8
_MAX_VALUE: Final = 1 << 16
_MAX_NAME: Final = 255
# Of one inode: as much as the packer accepts. A hostile image could show one value many times.
_MAX_SET: Final = 1 << 20
_CACHED_SETS: Final = 16

Xattrs = tuple[tuple[bytes, bytes], ...]


class XattrTable:
    """The sets of one image by their rows; pairs of full name and value."""

    def __init__(self, metadata: Metadata, position: int) -> None:
        self.row = lru_cache(maxsize=_CACHED_SETS)(self._read_row)
        if position == ABSENT:
            self._sets = LookupTable(metadata, 0, rows=0, row_size=_SET.size, what="attribute set")
            self._pairs = Stream(metadata, 0, 0)
            return
        start, rows, _ = _HEADER.unpack(metadata.raw(position, _HEADER.size))
        self._sets = LookupTable(
            metadata,
            position + _HEADER.size,
            rows=rows,
            row_size=_SET.size,
            what="attribute set",
        )
        self._pairs = Stream(metadata, start, position)

    def _read_row(self, number: int) -> Xattrs:
        reference, count, _ = _SET.unpack(self._sets.row(number))
        cursor = self._pairs.at_reference(reference)
        left = _MAX_SET
        found = []
        for _ in range(count):
            kind, length = cursor.unpack(_KEY)
            prefix = kind & ~_OUT_OF_LINE
            if prefix >= len(XATTR_PREFIXES):
                raise ImageCorruptError("the image has an attribute of an unknown kind")
            name = XATTR_PREFIXES[prefix] + cursor.read(length)
            if len(name) > _MAX_NAME or b"\0" in name:
                raise ImageCorruptError("the image has an attribute of impossible name")
            size = cursor.number()
            source = cursor
            if kind & _OUT_OF_LINE:
                if size != _REFERENCE_SIZE:
                    raise ImageCorruptError("the image has an attribute whose value is nowhere")
                source = self._pairs.at_reference(int.from_bytes(cursor.read(size), "little"))
                size = source.number()
            if size > _MAX_VALUE:
                raise ImageCorruptError("the image has an attribute of impossible size")
            left -= len(name) + size
            if left < 0:
                message = f"the image has a file with more than {_MAX_SET:,} bytes of attributes"
                raise ImageUnsupportedError(message)
            found.append((name, source.read(size)))
        return tuple(found)
