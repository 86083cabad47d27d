"""Names in a block of an ext directory; blocks of its index look like blocks without any."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from services.converter.disks.filesystem import damaged
from services.converter.disks.volume import unpacked

_ENTRY: Final = Struct("<IHBB")
_LARGEST: Final = 1 << 16
# What a length of 64 KiB is written as, which has no room in 16 bits. In smaller blocks a length of
# 0 is damage: a block of zeros was lost, with the names in it.
_WHOLE: Final = (0, 0xFFFF)


def names_in(block: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + _ENTRY.size <= len(block):
        inode, length, name_length, _ = unpacked(_ENTRY, block, at)
        if len(block) == _LARGEST and length in _WHOLE:
            length = len(block) - at
        elif len(block) == _LARGEST:
            length = length & 0xFFFC | (length & 3) << 16
        if length < _ENTRY.size + name_length or length % 4 or at + length > len(block):
            raise damaged("a directory has an entry of an impossible length")
        if inode:
            yield block[at + _ENTRY.size : at + _ENTRY.size + name_length], inode
        at += length
