"""Read a squashfs image without mounting it: list it, find paths, read files and attributes.

For machines where nothing can be mounted, and for images that others made. An image may be damaged
or hostile: memory stays flat, whatever it says of itself.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shared.image import kinds
from shared.image.codecs import block_expander
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.kinds import BLOCK_SIZE_MASK, RAW_BLOCK
from shared.image.merging.budget import MAX_DEPTH
from shared.image.reading.inode import Inode, read_block_sizes, read_inode
from shared.image.reading.listing import Entry, IndexPoint, find_entry, read_index, read_listing
from shared.image.reading.metadata import LookupTable, Metadata, Stream
from shared.image.reading.xattrs import Xattrs, XattrTable
from shared.image.squashfs.superblock import ABSENT, SIZE, Superblock

# As imported trees may have. Hard links let a small image show far more than it has room for.
MAX_NAMES: Final = 16_000_000
_CACHED_FRAGMENTS: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A name in a directory below the root, and what is there; the root has no name."""

    # One object for all that is in a directory: paths may be long, and files many.
    parent: bytes
    entry: Entry
    inode: Inode

    @property
    def name(self) -> bytes:
        return self.entry.name

    @property
    def path(self) -> bytes:
        return self.parent + b"/" + self.name if self.parent else self.name


class SquashImage:
    """An image file, open for reading. Use it as a context manager."""

    def __init__(self, image: Path | int) -> None:
        """A path, or a descriptor that is taken over."""
        self._file = open(image, "rb")  # noqa: PTH123, SIM115 - a descriptor has no path
        try:
            self.superblock = superblock = Superblock.unpack(os.pread(self._file.fileno(), SIZE, 0))
            self._check_size()
            self._expander = block_expander(superblock.compression)
            self._metadata = Metadata(self._file, self._expander, superblock.bytes_used)
            self._open_tables()
        except BaseException:
            self._file.close()
            raise
        self._fragment = lru_cache(maxsize=_CACHED_FRAGMENTS)(self._read_fragment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def walk(self) -> Iterator[Found]:
        """Everything, each directory before what is in it."""
        root = self.root()
        yield root
        names = 0
        # One byte for each inode number, because a set of them may need a hundred.
        seen = bytearray(self.count_inodes() + 1)
        self._mark(seen, root)
        # Listings that are being read, from the root down: one of each level.
        levels = [self._children(root)]
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
                continue
            names += 1
            _limit_names(names)
            yield found
            if found.inode.kind == kinds.DIRECTORY:
                self._mark(seen, found)
                if len(levels) > MAX_DEPTH:
                    message = f"the image has directories more than {MAX_DEPTH} deep in each other"
                    raise ImageUnsupportedError(message)
                levels.append(self._children(found))

    def count_inodes(self) -> int:
        """How many there are, as the image says, unless that is more than can be gone through."""
        _limit_names(self.superblock.inodes)
        return self.superblock.inodes

    def root(self) -> Found:
        inode = self.inode(self.superblock.root)
        if inode.kind != kinds.DIRECTORY:
            raise ImageCorruptError("the image's root is no directory")
        return Found(b"", Entry(b"", inode.reference, inode.kind, inode.number), inode)

    def lookup(self, path: bytes) -> Found | None:
        """What is at `path`, relative to the root and normalised; symlinks are not followed."""
        found = self.root()
        for name in path.split(b"/") if path else ():
            if found.inode.kind != kinds.DIRECTORY:
                return None
            entry = find_entry(self._inodes, self._directories, found.inode, name)
            if entry is None:
                return None
            found = Found(found.path, entry, self.inode(entry.reference))
        return found

    def content(self, inode: Inode) -> Iterator[bytes]:
        """A file's bytes, block by block; holes are given as zeros."""
        position = 0
        for offset, block in self.data(inode):
            yield from self._zeros(offset - position)
            yield block
            position = offset + len(block)
        yield from self._zeros(inode.size - position)

    def data(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """A file's blocks with their offsets, without its holes."""
        block_size = self.superblock.block_size
        position, offset = inode.start, 0
        for size in self.block_sizes(inode):
            wanted = min(inode.size - offset, block_size)
            if size:
                block = self.read_block(position, size)
                if len(block) != wanted:
                    raise ImageCorruptError("the image has a data block of the wrong size")
                yield offset, block
            position += size & BLOCK_SIZE_MASK
            offset += wanted
        left = inode.size - offset
        if left:
            tail = self._fragment(inode.fragment)[inode.offset : inode.offset + left]
            if len(tail) != left:
                raise ImageCorruptError("the image has a fragment that is too short")
            yield offset, tail

    def xattrs(self, inode: Inode) -> Xattrs:
        """Pairs of full name and value."""
        return () if inode.xattrs == kinds.NO_XATTRS else self._xattrs.row(inode.xattrs)

    def inode(self, reference: int) -> Inode:
        return read_inode(self._inodes, self._ids, self.superblock.block_size, reference)

    def exported(self, number: int) -> int | None:
        """The reference of inode `number`, unless the image has no table of them."""
        if self._exports is None:
            return None
        return int.from_bytes(self._exports.row(number - 1), "little")

    def index(self, directory: Inode) -> Iterator[IndexPoint]:
        return read_index(self._inodes, directory)

    def listing(self, directory: Inode, point: IndexPoint | None = None) -> Iterator[Entry]:
        return read_listing(self._directories, directory, point)

    def block_sizes(self, file: Inode) -> Iterator[int]:
        return read_block_sizes(self._inodes, file)

    def fragment_block(self, number: int) -> tuple[int, int]:
        """Where a fragment block is, and its size on disk."""
        row = self._fragments.row(number)
        return int.from_bytes(row[:8], "little"), int.from_bytes(row[8:12], "little")

    def read_block(self, position: int, size: int) -> bytes:
        """A data or fragment block; `size` is as on disk, with a bit for blocks stored as is."""
        stored = size & ~RAW_BLOCK
        if not 0 < stored <= self.superblock.block_size:
            raise ImageCorruptError("the image has a data block of impossible size")
        data = self._metadata.raw(position, stored)
        if size & RAW_BLOCK:
            return data
        return self._expander.decompress(data, self.superblock.block_size)

    @staticmethod
    def _mark(seen: bytearray, directory: Found) -> None:
        """A hostile image may have a directory in itself, or show one at many places."""
        number = directory.inode.number
        if number >= len(seen):
            raise ImageCorruptError(
                f"the image has no inode number {number}, but a directory of it"
            )
        if seen[number]:
            raise ImageCorruptError("the image has a directory at two places")
        seen[number] = 1

    def _check_size(self) -> None:
        if os.fstat(self._file.fileno()).st_size < self.superblock.bytes_used:
            raise ImageCorruptError("the image is shorter than it says")

    def _open_tables(self) -> None:
        metadata, superblock = self._metadata, self.superblock
        tables = {
            superblock.id_table,
            superblock.xattr_table,
            superblock.inode_table,
            superblock.directory_table,
            superblock.fragment_table,
            superblock.export_table,
            superblock.bytes_used,
        }

        def stream(start: int) -> Stream:
            return Stream(metadata, start, min((t for t in tables if t > start), default=start))

        self._inodes = stream(superblock.inode_table)
        self._directories = stream(superblock.directory_table)
        self._ids = LookupTable(
            metadata, superblock.id_table, rows=superblock.ids, row_size=4, what="owner"
        )
        self._fragments = LookupTable(
            metadata,
            superblock.fragment_table,
            rows=superblock.fragments,
            row_size=16,
            what="fragment",
        )
        self._exports = None
        if superblock.export_table != ABSENT:
            self._exports = LookupTable(
                metadata,
                superblock.export_table,
                rows=superblock.inodes,
                row_size=8,
                what="inode number",
            )
        self._xattrs = XattrTable(metadata, superblock.xattr_table)

    def _zeros(self, count: int) -> Iterator[bytes]:
        zeros = bytes(min(count, self.superblock.block_size))
        while count:
            yield zeros[:count]
            count -= len(zeros[:count])

    def _children(self, directory: Found) -> Iterator[Found]:
        path = directory.path
        for entry in self.listing(directory.inode):
            yield Found(path, entry, self.inode(entry.reference))

    def _read_fragment(self, number: int) -> bytes:
        return self.read_block(*self.fragment_block(number))


def _limit_names(count: int) -> None:
    if count > MAX_NAMES:
        message = f"the image has more than {MAX_NAMES:,} files, and no more are read"
        raise ImageUnsupportedError(message)
