"""What a listing says of each file, in a spool: some hundred bytes on disk, none in memory."""

import os
import struct
from collections.abc import Iterator
from typing import Final

from services.converter.trees.errors import TreeChangedError
from shared.image.tar.row import Row

_FIXED = struct.Struct("<QBHIIqqQQQHH")
_STORED: Final = struct.Struct("<Q")
_PIECE: Final = 1 << 20


def encoded(row: Row) -> bytes:
    path, kind, mode, uid, gid, mtime, changed, size, stored, place, device, target = row
    lengths = len(path), len(target)
    fixed = _FIXED.pack(stored, kind, mode, uid, gid, mtime, changed, size, place, device, *lengths)
    return fixed + path + target


def stamped(data: bytes) -> memoryview:
    """Of an encoded row what tells an unchanged file from a changed one.

    What it takes on disk does not: file systems only find out later.
    """
    return memoryview(data)[_STORED.size :]


def decoded(spool: int, start: int, length: int) -> Iterator[Row]:
    """The rows in these bytes of the spool, a descriptor that others read from as well."""
    left = length
    data, at = b"", 0
    size = _FIXED.size
    while at < len(data) or left:
        # No row is as long as a piece.
        if len(data) - at < _PIECE and left:
            more = os.pread(spool, min(left, _PIECE), start)
            if not more:
                break
            start += len(more)
            left -= len(more)
            data, at = data[at:] + more, 0
        if len(data) - at < size:
            break
        *fields, path_length, target_length = _FIXED.unpack_from(data, at)
        middle = at + size + path_length
        end = middle + target_length
        if end > len(data):
            break
        stored, kind, mode, uid, gid, mtime, changed, file_size, place, device = fields
        yield Row(
            data[at + size : middle],
            kind,
            mode,
            uid,
            gid,
            mtime,
            changed,
            file_size,
            stored,
            place,
            device,
            data[middle:end],
        )
        at = end
    if at < len(data) or left:
        raise TreeChangedError("what was listed of the tree is gone: import it again")
