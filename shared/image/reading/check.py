"""The full check of a squashfs image: all that is reachable, followed, and compared with the rest.

Stricter than a reader needs to be, about what kernels rely on when they look up, list and export.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path

from shared.image import kinds
from shared.image.errors import ImageCorruptError
from shared.image.reading.check_data import DataCheck
from shared.image.reading.inode import Inode
from shared.image.reading.reader import MAX_NAMES, Found, SquashImage


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a sound image has, as counted."""

    inodes: int
    names: int
    directories: int
    odd_directories: int
    """Directories with another link count than 2 and their subdirectories: tar2sqfs makes them."""
    exported: bool
    """Whether inodes can be found by their numbers, as servers of network file systems do."""
    blocks: int
    fragments: int
    unused_fragments: int
    stored_bytes: int
    """What files refer to of the data in the image."""
    expanded_bytes: int


def check(path: Path) -> CheckReport:
    """Raises ImageCorruptError at the first thing that is wrong. Blocks, as long as reading all."""
    with SquashImage(path) as image:
        inodes = _InodeCheck(image)
        details = _DetailCheck(image)
        data = details.data
        names = directories = 0
        for found in image.walk():
            try:
                if inodes.add(found):
                    directories += found.inode.kind == kinds.DIRECTORY
                    details.add(found.inode)
            except ImageCorruptError as exc:
                raise ImageCorruptError(f"{_shown(found)}: {exc}") from exc
            names += 1
        odd_directories = inodes.finish()
        data.read_all()
        return CheckReport(
            inodes=image.superblock.inodes,
            names=names,
            directories=directories,
            odd_directories=odd_directories,
            exported=image.exported(1) is not None,
            blocks=data.block_count,
            fragments=data.fragment_count,
            unused_fragments=image.superblock.fragments - data.fragment_count,
            stored_bytes=data.stored_bytes,
            expanded_bytes=data.expanded_bytes,
        )


class _InodeCheck:
    """Numbers, links and what directories and the export table say of inodes."""

    def __init__(self, image: SquashImage) -> None:
        count = image.count_inodes()
        self._image = image
        self._found = 0
        # By number: the place of an inode plus one, and how many of its names are missing yet.
        self._references = array("Q", bytes(8 * (count + 1)))
        self._missing = array("q", bytes(8 * (count + 1)))
        self._is_directory = bytearray(count + 1)
        # By path, of the directories from the root down to the one that is being listed: the
        # inode number.
        self._open: list[tuple[bytes, int]] = []

    def add(self, found: Found) -> bool:
        """Whether this is the first name of its inode."""
        entry, inode = found.entry, found.inode
        if (entry.kind, entry.number) != (inode.kind, inode.number):
            raise ImageCorruptError("its directory and its inode do not agree")
        if not 0 < inode.number < len(self._references):
            raise ImageCorruptError(f"there is no inode number {inode.number}")
        reference = self._references[inode.number]
        if reference not in {0, inode.reference + 1}:
            raise ImageCorruptError(f"inode number {inode.number} is given twice")
        self._count_name(found)
        if reference:
            return False
        if self._image.exported(inode.number) not in {None, inode.reference}:
            raise ImageCorruptError("the export table has it in another place")
        self._references[inode.number] = inode.reference + 1
        self._found += 1
        return True

    def finish(self) -> int:
        """All names have been added; returns how many directories have odd link counts."""
        if self._found != self._image.superblock.inodes:
            raise ImageCorruptError(
                f"the image has {self._found} inodes, and says {self._image.superblock.inodes}"
            )
        odd = 0
        for number, missing in enumerate(self._missing):
            if missing and not self._is_directory[number]:
                raise ImageCorruptError(f"inode {number} has another number of names than it says")
            odd += missing != 0
        return odd

    def _count_name(self, found: Found) -> None:
        """Each inode has its names; a directory its own, one in its parent, one in each below."""
        inode = found.inode
        if not self._references[inode.number]:
            self._missing[inode.number] += inode.links
        if inode.kind != kinds.DIRECTORY:
            self._missing[inode.number] -= 1
            return
        self._is_directory[inode.number] = 1
        self._missing[inode.number] -= 2
        while self._open and self._open[-1][0] != found.parent:
            self._open.pop()
        if self._open:
            parent = self._open[-1][1]
            self._missing[parent] -= 1
            if inode.parent != parent:
                raise ImageCorruptError("it has another parent than it says")
        self._open.append((found.path, inode.number))


class _DetailCheck:
    """What an inode has besides its number and its names."""

    def __init__(self, image: SquashImage) -> None:
        self.data = DataCheck(image)
        self._image = image
        self._xattrs = {kinds.NO_XATTRS}
        self._index_points = 0

    def add(self, inode: Inode) -> None:
        if inode.xattrs not in self._xattrs:
            self._xattrs.add(inode.xattrs)
            self._image.xattrs(inode)
        if inode.kind == kinds.FILE:
            self.data.add_file(inode)
        elif inode.kind == kinds.DIRECTORY:
            self._check_index(inode)

    def _check_index(self, directory: Inode) -> None:
        """What is looked up by the index must be where the index says."""
        # Each point begins with a name of its own, but hostile directories may share an index.
        self._index_points += directory.list_length
        if self._index_points > MAX_NAMES:
            raise ImageCorruptError("directories' indexes have more names than there can be")
        latest = b""
        for point in self._image.index(directory):
            entry = next(self._image.listing(directory, point), None)
            if entry is None or entry.name != point.name or point.name <= latest:
                raise ImageCorruptError("its index leads to another name")
            latest = point.name


def _shown(found: Found) -> str:
    return "/" + found.path.decode("utf-8", "backslashreplace")
