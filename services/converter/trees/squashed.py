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
from services.converter.sources.errors import ArchiveInvalidError
from services.converter.trees.errors import TreeInvalidError, TreeTooLargeError
from services.converter.trees.walk import Noted
from shared.image import kinds
from shared.image.errors import ImageCorruptError
from shared.image.reading.inode import Inode
from shared.image.reading.reader import SquashImage
from shared.image.tar.contents import row_of
from shared.image.tar.links import Links
from shared.image.tar.row import Row

# Of all files: blocks may be holes, and hostile files share one list of them.
_MAX_BLOCKS: Final = 1 << 28


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
                row = row_of(path, inode)
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
