"""Kinds of entries: squashfs' own numbers for basic inodes, and two that only packs know."""

import stat
from typing import Final

DIRECTORY: Final = 1
FILE: Final = 2
SYMLINK: Final = 3
BLOCK_DEVICE: Final = 4
CHARACTER_DEVICE: Final = 5
FIFO: Final = 6
SOCKET: Final = 7
# A second name for another entry, of this layer or of one below.
HARD_LINK: Final = 8
# A device that the options forbid: it hides what a lower layer has there, and is not written.
DROPPED: Final = 9

DEVICES: Final = frozenset((BLOCK_DEVICE, CHARACTER_DEVICE))

OF_MODE: Final = {
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFREG: FILE,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFCHR: CHARACTER_DEVICE,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCKET,
}
"""By the part of a mode that `stat.S_IFMT` leaves."""

# What hides a name of lower layers is an empty file of that name with this in front.
WHITEOUT: Final = b".wh."
# Aufs kept what several names share here, and its layers' hard links lead here.
AUFS_LINKS: Final = b".wh..wh.plnk"

# An extended inode's type is the basic one plus this.
EXTENDED: Final = 7

NO_FRAGMENT: Final = 0xFFFFFFFF
NO_XATTRS: Final = 0xFFFFFFFF
# Bit 24 of a data block's size: stored as it is, because compression did not help.
RAW_BLOCK: Final = 1 << 24
BLOCK_SIZE_MASK: Final = RAW_BLOCK - 1

METADATA_BLOCK: Final = 8192
# Bit 15 of a metadata block's size, with the same meaning as bit 24 above.
RAW_METADATA: Final = 1 << 15
XATTR_PREFIXES: Final = (b"user.", b"trusted.", b"security.")
ALIGNMENT: Final = 4096


def aligned(position: int) -> int:
    """`position` rounded up, so that a file system can share the blocks that follow."""
    return position + -position % ALIGNMENT
