"""An XFS: finds inodes by number, which says where they are."""

from services.converter.disks.volume import Volume
from services.converter.disks.xfs import log
from services.converter.disks.xfs.inode import XfsNode, parsed
from services.converter.disks.xfs.superblock import Superblock, read_superblock


class Xfs:
    """Used by one thread."""

    kind = "xfs"

    def __init__(self, volume: Volume, superblock: Superblock) -> None:
        self.volume = volume
        self.superblock = superblock
        self.root = superblock.root

    def check_clean(self) -> None:
        log.check_clean(self.volume, self.superblock)

    def node(self, number: int) -> XfsNode:
        found = self.superblock
        block, index = number >> found.inodes_log, number & (1 << found.inodes_log) - 1
        at = found.place(block) + index * found.inode_size
        return parsed(self, number, self.volume.read(at, found.inode_size))


def open_xfs(volume: Volume) -> Xfs | None:
    """None if it is none."""
    superblock = read_superblock(volume)
    return None if superblock is None else Xfs(volume, superblock)
