"""Read a squashfs image without mounting it: list it, read its files.

For machines where nothing can be mounted. An image may be damaged or hostile: memory stays flat,
whatever it says of itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shared.image import kinds
from shared.image.budget import MAX_DEPTH
from shared.image.codecs import block_codec
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.inode_reader import Inode, Metadata, read_blocks, read_inode, read_listing
from shared.image.kinds import BLOCK_SIZE_MASK, RAW_BLOCK
from shared.image.superblock import SIZE, Superblock

_CACHED_FRAGMENTS: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A name in a directory below the root, and what is there; the root has no name."""

    # One object for all that is in a directory: paths may be long, and files many.
    parent: bytes
    name: bytes
    inode: Inode

    @property
    def path(self) -> bytes:
        return self.parent + b"/" + self.name if self.parent else self.name


class SquashImage:
    """An image file, open for reading. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self.superblock = Superblock.unpack(self._file.read(SIZE))
            self._codec = block_codec(self.superblock.compression)
        except BaseException:
            self._file.close()
            raise
        self._metadata = Metadata(self._file, self._codec, self.superblock)
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
        root = Found(b"", b"", read_inode(self._metadata, self.superblock, self.superblock.root))
        if root.inode.kind != kinds.DIRECTORY:
            raise ImageCorruptError("the image's root is no directory")
        yield root
        seen = {root.inode.reference}
        # Listings that are being read, from the root down: one of each level.
        levels = [self._children(root)]
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
                continue
            yield found
            if found.inode.kind == kinds.DIRECTORY:
                # A hostile image may be a directory in itself, or show one at many places.
                if found.inode.reference in seen:
                    raise ImageCorruptError("the image has a directory at two places")
                if len(levels) > MAX_DEPTH:
                    message = f"the image has directories more than {MAX_DEPTH} deep in each other"
                    raise ImageUnsupportedError(message)
                seen.add(found.inode.reference)
                levels.append(self._children(found))

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
        for size in read_blocks(self._metadata, inode):
            wanted = min(inode.size - offset, block_size)
            if size:
                block = self._read_block(position, size)
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

    def _zeros(self, count: int) -> Iterator[bytes]:
        zeros = bytes(min(count, self.superblock.block_size))
        while count:
            yield zeros[:count]
            count -= len(zeros[:count])

    def _children(self, directory: Found) -> Iterator[Found]:
        path = directory.path
        listing = read_listing(self._metadata, self.superblock, directory.inode)
        for name, reference in listing:
            yield Found(path, name, read_inode(self._metadata, self.superblock, reference))

    def _read_block(self, position: int, size: int) -> bytes:
        stored = size & BLOCK_SIZE_MASK
        if stored > self.superblock.block_size:
            raise ImageCorruptError("the image has a data block of impossible size")
        data = self._metadata.raw(position, stored)
        if size & RAW_BLOCK:
            return data
        return self._codec.decompress(data, self.superblock.block_size)

    def _read_fragment(self, number: int) -> bytes:
        if number >= self.superblock.fragments:
            raise ImageCorruptError("the image has a file in an unknown fragment")
        row = self._metadata.lookup(self.superblock.fragment_table, number, 16)
        position = int.from_bytes(row[:8], "little")
        return self._read_block(position, int.from_bytes(row[8:12], "little"))
