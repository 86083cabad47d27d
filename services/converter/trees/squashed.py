"""A squashfs image as a tree: listed and read by our own reader, never mounted.

It is hostile until shown otherwise. What it says of its sizes is added up before anything is
expanded, and what is expanded is held against that.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.converter.packing.errors import LayerTooLargeError
from services.converter.packing.limits import MAX_PATH, Limits
from services.converter.packing.tar_sparse import Regions
from services.converter.sources.errors import ArchiveInvalidError
from services.converter.trees.errors import TreeInvalidError, TreeTooLargeError
from services.converter.trees.links import Links
from services.converter.trees.rows import Row
from services.converter.trees.tar_writer import END, entry, padding, sparse_entry
from services.converter.trees.walk import Noted
from shared.image import kinds
from shared.image.errors import ImageCorruptError
from shared.image.kinds import BLOCK_SIZE_MASK
from shared.image.reading.inode import Inode
from shared.image.reading.reader import SquashImage

_SECOND: Final = 1_000_000_000
# Of all files: blocks may be holes, and hostile files share one list of them.
_MAX_BLOCKS: Final = 1 << 28
_DEVICES: Final = frozenset((kinds.BLOCK_DEVICE, kinds.CHARACTER_DEVICE))
_PIECE: Final = 1 << 20


@contextmanager
def opened(fd: int) -> Iterator[SquashImage]:
    """What is wrong with the image is the importer's affair, and trying again does not cure it."""
    try:
        with SquashImage(os.dup(fd)) as image:
            yield image
    except ImageCorruptError as exc:
        raise ArchiveInvalidError(f"the squashfs is damaged, or is none: {exc.message}") from exc


class SquashWalk:
    """Lists an image, as Walk does a directory."""

    def __init__(self, image: SquashImage, packed: int, limits: Limits, max_rows: int) -> None:
        """`packed` is the size of its file."""
        self.noted = Noted()
        self._image = image
        self._packed = packed
        self._limits = limits
        self._max_rows = max_rows
        self._blocks = 0

    def rows(self) -> Iterator[Row]:
        with Links() as links:
            for found in self._image.walk():
                path, inode = found.path, found.inode
                if inode.kind != found.entry.kind:
                    raise ImageCorruptError(
                        f"a directory and an inode do not agree about {path[:200]!r}"
                    )
                if inode.kind == kinds.SOCKET:
                    self.noted.sockets += 1
                    continue
                if len(path) > MAX_PATH:
                    raise TreeInvalidError(
                        f"the squashfs has a path of {len(path):,} bytes: {path[:200]!r}…"
                    )
                row = _row(path, inode)
                if inode.kind != kinds.DIRECTORY and inode.links > 1:
                    first = links.first_name(0, inode.reference, path)
                    if first is not None:
                        row = row._replace(kind=kinds.HARD_LINK, target=first, size=0, stored=0)
                self._check(inode, row)
                yield row

    def _check(self, inode: Inode, row: Row) -> None:
        noted = self.noted
        noted.rows += 1
        noted.size += row.stored
        if noted.rows > self._max_rows:
            raise TreeTooLargeError(
                f"the squashfs has more than {self._max_rows:,} files, which is not allowed"
            )
        if row.kind != kinds.FILE:
            return
        self._limits.check_bytes(row.size)
        if noted.size > self._limits.ratio_from and (
            noted.size > self._limits.max_ratio * self._packed
        ):
            raise LayerTooLargeError(
                f"the squashfs expands to more than {self._limits.max_ratio} times its size, "
                "which is not allowed: unpack it yourself if you trust it"
            )
        self._blocks += inode.list_length
        if self._blocks > _MAX_BLOCKS:
            raise TreeTooLargeError(f"the squashfs has more than {_MAX_BLOCKS:,} blocks")


class SquashContents:
    """Gives the tar of some rows of an image."""

    def __init__(self, image: SquashImage) -> None:
        self._image = image

    def tar(self, rows: Iterator[Row]) -> Iterator[bytes]:
        waiting: list[bytes] = []
        length = 0
        for row in rows:
            for piece in self._entry(row):
                waiting.append(piece)
                length += len(piece)
                if length >= _PIECE:
                    yield b"".join(waiting)
                    waiting, length = [], 0
        yield b"".join([*waiting, END])

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


def _row(path: bytes, inode: Inode) -> Row:
    is_file = inode.kind == kinds.FILE
    device = 0
    if inode.kind in _DEVICES:
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
