"""Extended attributes of XFS inodes: in the inode, or in blocks of a fork of their own."""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

from services.converter.disks.filesystem import MAX_XATTR, damaged
from services.converter.disks.volume import sliced, unpacked

_LOCAL: Final = 1
_ROOT: Final = 2
_SECURE: Final = 4
_PARENT: Final = 8
_INCOMPLETE: Final = 0x80
_ENTRY: Final = Struct(">4xHBx")
_REMOTE: Final = Struct(">IIB")
_INFO: Final = Struct(">I4xH")
_COUNT: Final = Struct(">H")
_NODE: Final = Struct(">4xI")
_REMOTE_MAGIC: Final = b"XARM"
_REMOTE_HEADER: Final = 56
# By magic: where the number of entries stands, and where they begin.
_LEAVES: Final = {0xFBEE: (12, 32), 0x3BEE: (56, 80)}
_NODES: Final = {0xFEBE: 16, 0x3EBE: 64}
_MAX_LEVELS: Final = 9
_MAX_LEAVES: Final = 1 << 12

Read = Callable[[int], bytes]
"""A block of the fork, by its number."""


def in_inode(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    count = sliced(data, 0, 4)[2]
    at = 4
    for _ in range(count):
        name_length, length, flags = sliced(data, at, 3)
        name = sliced(data, at + 3, name_length)
        value = sliced(data, at + 3 + name_length, length)
        at += 3 + name_length + length
        yield from _named(flags, name, lambda value=value: value)  # type: ignore[misc]


def in_blocks(read: Read, *, checked: bool) -> Iterator[tuple[bytes, bytes]]:
    """`checked`: values that do not fit into a leaf have a header in each of their blocks."""
    block, data = 0, read(0)
    for _ in range(_MAX_LEVELS):
        _, magic = unpacked(_INFO, data)
        if magic not in _NODES:
            break
        (block,) = unpacked(_NODE, data, _NODES[magic])
        data = read(block)
    for _ in range(_MAX_LEAVES):
        yield from _in_leaf(data, read, checked=checked)
        following, _ = unpacked(_INFO, data)
        if not following:
            return
        data = read(following)
    raise damaged("the attributes of a file never end")


def _in_leaf(data: bytes, read: Read, *, checked: bool) -> Iterator[tuple[bytes, bytes]]:
    _, magic = unpacked(_INFO, data)
    if magic not in _LEAVES:
        raise damaged("a file has broken attributes")
    count_at, first = _LEAVES[magic]
    (count,) = unpacked(_COUNT, data, count_at)
    for number in range(count):
        at, flags = unpacked(_ENTRY, data, first + number * _ENTRY.size)
        if flags & _LOCAL:
            (length,) = unpacked(_COUNT, data, at)
            (name_length,) = sliced(data, at + 2, 1)
            name = sliced(data, at + 3, name_length)
            value = sliced(data, at + 3 + name_length, length)
            yield from _named(flags, name, lambda value=value: value)  # type: ignore[misc]
        else:
            block, length, name_length = unpacked(_REMOTE, data, at)
            name = sliced(data, at + _REMOTE.size, name_length)

            def far(block: int = block, length: int = length) -> bytes:
                return _far(block, length, read, checked=checked)

            yield from _named(flags, name, far)


def _named(flags: int, name: bytes, value: Callable[[], bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Nothing of what is the file system's own."""
    if flags & (_PARENT | _INCOMPLETE):
        return
    if not name or b"\0" in name:
        raise damaged("an attribute has no possible name")
    before = b"security." if flags & _SECURE else b"trusted." if flags & _ROOT else b"user."
    # Access lists, in a form that only XFS has, stand between what is root's.
    if not name.startswith(b"SGI_"):
        yield before + name, value()


def _far(block: int, length: int, read: Read, *, checked: bool) -> bytes:
    if length > MAX_XATTR:
        raise damaged(f"a file has an attribute of {length:,} bytes")
    value = b""
    while len(value) < length:
        data = read(block)
        if checked:
            if not data.startswith(_REMOTE_MAGIC):
                raise damaged("a file has broken attributes")
            data = data[_REMOTE_HEADER:]
        value += data
        block += 1
    return value[:length]
