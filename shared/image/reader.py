"""Read a squashfs image without mounting it: list it, read files, extract it as anybody.

For machines where nothing can be mounted; slower than the kernel, and never more privileged than
its caller.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shared.errors import InvalidInputError
from shared.image import kinds
from shared.image.codecs import block_codec
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.inode_reader import Inode, Metadata, read_inode, read_listing, read_xattrs
from shared.image.kinds import BLOCK_SIZE_MASK, RAW_BLOCK
from shared.image.superblock import SIZE, Superblock

_CACHED_FRAGMENTS: Final = 8
_MAX_EXTRACTED: Final = 1 << 40
_SET_ID_BITS: Final = 0o6000


@dataclass(frozen=True, slots=True)
class Found:
    """A path below the root, b"" being the root itself, and what is there."""

    path: bytes
    inode: Inode


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
        root = read_inode(self._metadata, self.superblock, self.superblock.root)
        pending = [Found(b"", root)]
        # A hostile image may be a directory in itself; an honest one has no more of them.
        directories = 0
        while pending:
            found = pending.pop()
            yield found
            if found.inode.kind != kinds.DIRECTORY:
                continue
            directories += 1
            if directories > self.superblock.inodes:
                raise ImageCorruptError("the image has a directory that contains itself")
            pending += reversed(list(self._children(found)))

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        return read_xattrs(self._metadata, self.superblock, inode.xattrs)

    def content(self, inode: Inode) -> Iterator[bytes]:
        """A file's bytes, block by block; holes are given as zeros."""
        block_size = self.superblock.block_size
        position, left = inode.start, inode.size
        for size in inode.blocks:
            wanted = min(left, block_size)
            block = self._read_block(position, size) if size else bytes(wanted)
            if len(block) != wanted:
                raise ImageCorruptError("the image has a data block of the wrong size")
            yield block
            position += size & BLOCK_SIZE_MASK
            left -= wanted
        if left:
            tail = self._fragment(inode.fragment)[inode.offset : inode.offset + left]
            if len(tail) != left:
                raise ImageCorruptError("the image has a fragment that is too short")
            yield tail

    def _children(self, directory: Found) -> Iterator[Found]:
        prefix = directory.path + b"/" if directory.path else b""
        listing = read_listing(self._metadata, self.superblock, directory.inode)
        for name, reference in listing:
            yield Found(prefix + name, read_inode(self._metadata, self.superblock, reference))

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


def extract(path: Path, into: Path, *, max_bytes: int = _MAX_EXTRACTED) -> None:
    """Unpack the image at `path` into `into`, which must not exist yet or be empty. Blocks.

    Owners become the caller's; devices, sockets and extended attributes are left out; directories
    stay accessible to their owner. Nothing outside of `into` is touched, whatever the image says.
    After an error the caller removes what there is.
    """
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        message = f"{into} is not empty: an image needs a directory of its own"
        raise InvalidInputError(message)
    with SquashImage(path) as image:
        try:
            _Extraction(image, into, max_bytes).run()
        except FileExistsError as exc:
            raise ImageCorruptError("the image has two files of the same name") from exc


class _Extraction:
    """Every name is created new, never opened or replaced; symlinks are made when all else is."""

    def __init__(self, image: SquashImage, root: Path, max_bytes: int) -> None:
        self._image = image
        self._root = root
        self._left = max_bytes
        self._names: dict[int, Path] = {}
        self._symlinks: list[Found] = []
        self._directories: list[Found] = []

    def run(self) -> None:
        for found in self._image.walk():
            if found.inode.kind == kinds.SYMLINK:
                self._symlinks.append(found)
            elif found.inode.kind == kinds.DIRECTORY:
                self._make_directory(found)
            elif found.inode.kind in {kinds.FILE, kinds.FIFO}:
                self._make_file(found)
        for found in self._symlinks:
            target = self._place(found)
            target.symlink_to(os.fsdecode(found.inode.target))
            os.utime(target, (found.inode.mtime,) * 2, follow_symlinks=False)
        # Last, because what is made in a directory changes its time.
        for found in reversed(self._directories):
            target = self._place(found)
            target.chmod(found.inode.mode & ~_SET_ID_BITS | 0o700)
            os.utime(target, (found.inode.mtime,) * 2)

    def _place(self, found: Found) -> Path:
        return self._root / os.fsdecode(found.path)

    def _make_directory(self, found: Found) -> None:
        if found.path:
            self._place(found).mkdir(0o700)
        self._directories.append(found)

    def _make_file(self, found: Found) -> None:
        inode, target = found.inode, self._place(found)
        first = self._names.get(inode.number)
        if first is not None:
            os.link(first, target, follow_symlinks=False)
            return
        if inode.links > 1:
            self._names[inode.number] = target
        if inode.kind == kinds.FIFO:
            os.mkfifo(target, 0o600)
        else:
            self._write_file(inode, target)
        target.chmod(inode.mode & ~_SET_ID_BITS | 0o400)
        os.utime(target, (inode.mtime,) * 2)

    def _write_file(self, inode: Inode, target: Path) -> None:
        self._left -= inode.size
        if self._left < 0:
            raise ImageUnsupportedError("the image is larger than what may be extracted here")
        with target.open("xb") as file:
            for block in self._image.content(inode):
                if block.strip(b"\0"):
                    file.write(block)
                else:
                    file.seek(len(block), os.SEEK_CUR)
            file.truncate(inode.size)
