"""Extended attributes in an image's tables, which only the kernel reads otherwise."""

import struct

from shared.image import kinds
from shared.image.inode_reader import Cursor, Inode
from shared.image.kinds import XATTR_PREFIXES
from shared.image.reader import SquashImage
from shared.image.superblock import ABSENT


def inode_xattrs(image: SquashImage, inode: Inode) -> dict[bytes, bytes]:
    """What this inode has, by full name."""
    metadata, superblock = image._metadata, image.superblock
    cursor = metadata.cursor(
        superblock.inode_table + (inode.reference >> 16), inode.reference & 0xFFFF
    )
    row = _row(cursor)
    if row == kinds.NO_XATTRS:
        return {}
    assert superblock.xattr_table != ABSENT
    start, _ = struct.unpack("<QQ", metadata.raw(superblock.xattr_table, 16))
    reference, count, _ = struct.unpack(
        "<QII", metadata.lookup(superblock.xattr_table + 16, row, 16)
    )
    cursor = metadata.cursor(start + (reference >> 16), reference & 0xFFFF)
    xattrs = {}
    for _ in range(count):
        prefix, length = struct.unpack("<HH", cursor.read(4))
        name = XATTR_PREFIXES[prefix] + cursor.read(length)
        xattrs[name] = cursor.read(cursor.number())
    return xattrs


def _row(cursor: Cursor) -> int:
    """The last field of every extended inode that has one."""
    kind = struct.unpack("<H14x", cursor.read(16))[0]
    match kind - kinds.EXTENDED:
        case kinds.DIRECTORY:
            cursor.read(20)
        case kinds.FILE:
            cursor.read(36)
        case kinds.SYMLINK:
            cursor.read(4)
            cursor.read(cursor.number())
        case kinds.CHARACTER_DEVICE | kinds.BLOCK_DEVICE:
            cursor.read(8)
        case kinds.FIFO | kinds.SOCKET:
            cursor.read(4)
        case _:
            return kinds.NO_XATTRS
    return cursor.number()
