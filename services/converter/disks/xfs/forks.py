"""Where the data or the attributes of an XFS inode lie: its extents, in the inode or in a tree."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from services.converter.disks.filesystem import MAX_PIECES, damaged
from services.converter.disks.volume import Volume, sliced, unpacked
from services.converter.disks.xfs.superblock import Superblock

DEVICE: Final = 0
LOCAL: Final = 1
EXTENTS: Final = 2
TREE: Final = 3
_EXTENT: Final = Struct(">QQ")
_ROOT: Final = Struct(">HH")
_NODE: Final = Struct(">4sHH")
_POINTER: Final = Struct(">Q")
_MAX_LEVEL: Final = 9
# By the version: the name of a block of the tree, and the length of its header.
_BLOCKS: Final = {4: (b"BMAP", 24), 5: (b"BMA3", 72)}


class Extent(NamedTuple):
    """In blocks."""

    start: int
    blocks: int
    block: int
    unwritten: bool


@dataclass(frozen=True, slots=True)
class Fork:
    """Of the inode `number`; `data` is what the inode itself has of it."""

    volume: Volume
    superblock: Superblock
    number: int
    form: int
    count: int
    """Of extents, if they are here."""
    data: bytes

    def extents(self) -> Iterator[Extent]:
        """In their order, and without overlaps."""
        end = 0
        if self.form == EXTENTS:
            found = _in(sliced(self.data, 0, self.count * _EXTENT.size))
        elif self.form == TREE:
            found = self._tree()
        else:
            raise damaged(f"inode {self.number} has no extents")
        for seen, extent in enumerate(found):
            if extent.start < end or not extent.blocks or seen > MAX_PIECES:
                raise damaged(f"inode {self.number} has parts that overlap, or too many")
            end = extent.start + extent.blocks
            yield extent

    def _tree(self) -> Iterator[Extent]:
        level, count = unpacked(_ROOT, self.data)
        most = (len(self.data) - _ROOT.size) // 16
        pointers = self._pointers(self.data, _ROOT.size, most, count)
        if not 0 < level <= _MAX_LEVEL:
            raise damaged(f"inode {self.number} has a broken map")
        steps = iter(range(MAX_PIECES))
        for block in pointers:
            yield from self._below(block, level - 1, steps)

    def _below(self, block: int, level: int, steps: Iterator[int]) -> Iterator[Extent]:
        if next(steps, None) is None:
            raise damaged(f"inode {self.number} has a map that never ends")
        size = self.superblock.block_size
        data = self.volume.read(self.superblock.place(block), size)
        name, header = _BLOCKS[self.superblock.version]
        found, there, count = unpacked(_NODE, data)
        if found != name or there != level or not count:
            raise damaged(f"inode {self.number} has a broken map")
        if not level:
            yield from _in(sliced(data, header, count * _EXTENT.size))
            return
        for below in self._pointers(data, header, (size - header) // 16, count):
            yield from self._below(below, level - 1, steps)

    def _pointers(self, data: bytes, at: int, most: int, count: int) -> list[int]:
        """They stand behind the keys, for which there is room for as many as there could be."""
        if count > most:
            raise damaged(f"inode {self.number} has a broken map")
        pointers = sliced(data, at + most * 8, count * 8)
        return [block for (block,) in _POINTER.iter_unpack(pointers)]


def _in(data: bytes) -> Iterator[Extent]:
    for high, low in _EXTENT.iter_unpack(data):
        start = high >> 9 & (1 << 54) - 1
        block = (high & 0x1FF) << 43 | low >> 21
        yield Extent(start, low & (1 << 21) - 1, block, bool(high >> 63))
