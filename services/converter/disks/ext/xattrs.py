"""Extended attributes of ext inodes: behind the inode, in a block, or in inodes of their own."""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from services.converter.disks.filesystem import damaged
from services.converter.disks.volume import sliced, unpacked

MAGIC: Final = Struct("<I").pack(0xEA020000)
BLOCK_HEADER: Final = 32
_ENTRY: Final = Struct("<BBHIII")
_PREFIXES: Final = {1: b"user.", 4: b"trusted.", 6: b"security.", 7: b"system."}
# Access lists, in a form that only ext has; no image takes them.
_LISTS: Final = frozenset((2, 3, 8))


class Found(NamedTuple):
    """One attribute; `inode` has the value if it is not 0."""

    name: bytes
    value: bytes
    inode: int
    size: int


def entries(data: bytes, first: int, base: int) -> Iterator[Found]:
    """`first` is where the list begins, `base` what the values' offsets count from."""
    at = first
    while at + 4 <= len(data) and data[at : at + 4] != bytes(4):
        length, prefix, offset, inode, size, _ = unpacked(_ENTRY, data, at)
        name = sliced(data, at + _ENTRY.size, length)
        at += -(-(_ENTRY.size + length) // 4) * 4
        if prefix in _LISTS:
            continue
        before = _PREFIXES.get(prefix)
        if before is None or b"\0" in name:
            raise damaged("an attribute has no possible name")
        value = b"" if inode or not size else sliced(data, base + offset, size)
        yield Found(before + name, value, inode, size)
