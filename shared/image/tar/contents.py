"""What is in a squashfs image as the entries of a tar."""

import os
from collections.abc import Iterator
from typing import Final

from shared.image import kinds
from shared.image.errors import ImageCorruptError
from shared.image.kinds import BLOCK_SIZE_MASK
from shared.image.reading.inode import Inode
from shared.image.reading.reader import SquashImage
from shared.image.tar.row import Row
from shared.image.tar.writer import END, Regions, entry, gathered, padding, sparse_entry

_SECOND: Final = 1_000_000_000


class SquashContents:
    """Gives the tar of some rows of an image."""

    def __init__(self, image: SquashImage) -> None:
        self._image = image

    def tar(self, rows: Iterator[Row]) -> Iterator[bytes]:
        yield from gathered(piece for row in rows for piece in self._entry(row))
        yield END

    def _entry(self, row: Row) -> Iterator[bytes]:
        if row.kind == kinds.HARD_LINK:
            yield entry(row)
            return
        inode = self._image.inode(row.place)
        xattrs = tuple(pair for pair in self._image.xattrs(inode) if b"=" not in pair[0])
        if row.kind != kinds.FILE:
            yield entry(row, xattrs)
            return
        regions = self._regions(inode)
        data = sum(length for _, length in regions)
        if data > row.stored:
            raise ImageCorruptError(f"{row.path[:200]!r} has more data than it says")
        if data == row.size:
            yield entry(row, xattrs)
            rest = padding(data)
        else:
            head, over = sparse_entry(row, regions, xattrs)
            yield head
            rest = bytes(over)
        given = 0
        for _, block in self._image.data(inode):
            given += len(block)
            yield block
        if given != data:
            raise ImageCorruptError(f"{row.path[:200]!r} has not the data that it says")
        yield rest

    def _regions(self, inode: Inode) -> Regions:
        """Where its blocks are no holes; neighbours are one."""
        block_size = self._image.superblock.block_size
        regions: Regions = []
        begin, offset = 0, 0
        for size in self._image.block_sizes(inode):
            end = min(offset + block_size, inode.size)
            if not size & BLOCK_SIZE_MASK:
                if offset > begin:
                    regions.append((begin, offset - begin))
                begin = end
            offset = end
        if inode.size > begin:
            regions.append((begin, inode.size - begin))
        return regions


def row_of(path: bytes, inode: Inode) -> Row:
    """Of the name by which the inode is listed first; what finds it again is its reference."""
    is_file = inode.kind == kinds.FILE
    device = 0
    if inode.kind in kinds.DEVICES:
        minor = inode.device & 0xFF | (inode.device >> 12) & 0xFFF00
        device = os.makedev(inode.device >> 8 & 0xFFF, minor)
    size = inode.size if is_file else 0
    return Row(
        path,
        inode.kind,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.mtime * _SECOND,
        0,
        size,
        size - min(size, inode.sparse),
        inode.reference,
        device,
        inode.target,
    )
