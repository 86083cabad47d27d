"""Names in an XFS directory: in its inode, in one block, or in many."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from services.converter.disks.filesystem import damaged
from services.converter.disks.volume import sliced, unpacked

# Where in a directory its index begins: what is before that are names.
INDEX_AT: Final = 32 << 30
_FREE: Final = 0xFFFF
_UNUSED: Final = Struct(">HH")
_ENTRY: Final = Struct(">QB")
_TAIL: Final = Struct(">II")
_INDEXED: Final = 8
# With its index in it, or without; in both versions, and how long their headers are.
_SINGLE: Final = {b"XD2B": 16, b"XDB3": 64}
_DATA: Final = {b"XD2D": 16, b"XDD3": 64}


def names_in_inode(data: bytes, *, has_types: bool) -> Iterator[tuple[bytes, int]]:
    # One long number, be it the parent's, makes all of them long.
    count, long = sliced(data, 0, 2)
    width = 8 if long else 4
    at = 2 + width
    for _ in range(count):
        (length,) = sliced(data, at, 1)
        name = sliced(data, at + 3, length)
        at += 3 + length + has_types
        yield name, int.from_bytes(sliced(data, at, width), "big")
        at += width


def names_in_block(block: bytes, *, has_types: bool) -> Iterator[tuple[bytes, int]]:
    at, end = _bounds(block)
    while at < end:
        tag, length = unpacked(_UNUSED, block, at)
        if tag == _FREE:
            if length < _INDEXED or length % 8:
                raise damaged("a directory has a gap of an impossible length")
        else:
            inode, name_length = unpacked(_ENTRY, block, at)
            name = sliced(block, at + _ENTRY.size, name_length)
            length = -(-(_ENTRY.size + name_length + has_types + 2) // 8) * 8
            yield name, inode
        at += length
        if at > end:
            raise damaged("a directory has an entry of an impossible length")


def _bounds(block: bytes) -> tuple[int, int]:
    name = block[:4]
    if name in _DATA:
        return _DATA[name], len(block)
    if name not in _SINGLE:
        raise damaged("a directory has a block that is none")
    count, _ = unpacked(_TAIL, block, len(block) - _TAIL.size)
    end = len(block) - _TAIL.size - count * _INDEXED
    if end < _SINGLE[name]:
        raise damaged("a directory has an impossible index")
    return _SINGLE[name], end
