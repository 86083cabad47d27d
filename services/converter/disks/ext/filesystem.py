"""An ext file system: finds inodes by number."""

from struct import Struct
from typing import Final

from services.converter.disks.ext.inode import ExtNode, parsed
from services.converter.disks.ext.superblock import Superblock, read_superblock
from services.converter.disks.filesystem import damaged
from services.converter.disks.volume import Recent, Volume, unpacked

_ROOT: Final = 2
_TABLE_LOW: Final = Struct("<8xI")
_TABLE_HIGH: Final = Struct("<40xI")
_WITH_HIGH: Final = 64
_TABLES_KEPT: Final = 4096
# One for each of the most files, and for the content of some 100 TiB.
_MOST_BLOCKS: Final = 1 << 25


class Ext:
    """Used by one thread."""

    kind = "ext"
    root = _ROOT

    def __init__(self, volume: Volume, superblock: Superblock) -> None:
        self.volume = volume
        self.block_size = superblock.block_size
        self._super = superblock
        self._tables = Recent(self._table, _TABLES_KEPT)
        self._blocks_left = _MOST_BLOCKS

    def check_clean(self) -> None:
        self._super.check_clean()

    def node(self, number: int) -> ExtNode:
        found = self._super
        if not 0 < number <= found.inodes:
            raise damaged(f"there is no inode {number}")
        group, index = divmod(number - 1, found.inodes_per_group)
        at = self._tables.get(group) + index * found.inode_size
        return parsed(self, number, self.volume.read(at, found.inode_size))

    def block(self, number: int) -> bytes:
        """One of a map, or of attributes."""
        self._blocks_left -= 1
        if self._blocks_left < 0:
            raise damaged("its files have maps that never end")
        return self.volume.read(number * self.block_size, self.block_size)

    def _table(self, group: int) -> int:
        """Where the inodes of a group are."""
        found = self._super
        per_block = self.block_size // found.group_size
        block, index = divmod(group, per_block)
        if found.first_meta_group is not None and block >= found.first_meta_group:
            first = block * per_block
            place = found.first_block + first * found.blocks_per_group + found.has_copy(first)
            if not block and found.first_block < found.own_block:
                place += 1  # the very first block is nobody's
        else:
            place = found.own_block + 1 + block
        at = place * self.block_size + index * found.group_size
        data = self.volume.read(at, found.group_size)
        (low,) = unpacked(_TABLE_LOW, data)
        high = unpacked(_TABLE_HIGH, data)[0] if found.group_size >= _WITH_HIGH else 0
        return int(low | high << 32) * self.block_size


def open_ext(volume: Volume) -> Ext | None:
    """None if it is none."""
    superblock = read_superblock(volume)
    return None if superblock is None else Ext(volume, superblock)
