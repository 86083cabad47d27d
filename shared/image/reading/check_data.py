"""Are all data of an image where its files say, and can they be expanded?

Files may share blocks, but two blocks are the same or apart: so each is expanded once, in the order
of the file, and a small image cannot ask for endless work.
"""

from typing import Final

from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.kinds import BLOCK_SIZE_MASK
from shared.image.reading.inode import Inode
from shared.image.reading.reader import SquashImage
from shared.image.squashfs.superblock import SIZE

# At 128 KiB each, 1 TiB of data; some 100 bytes of memory each.
_MAX_BLOCKS: Final = 1 << 23
# With holes, and as often as files share them: hostile files may even share the list of blocks.
_MAX_LISTED: Final = 1 << 28
_MAX_EXPANDED: Final = 1 << 40
# A block as one number, which sorts by its position: position, size on disk, size expanded.
_EXPANDED_BITS: Final = 21
_STORED_BITS: Final = 25


class DataCheck:
    """Collects the blocks that files refer to, and reads them all in the end."""

    def __init__(self, image: SquashImage) -> None:
        self.stored_bytes = 0
        self.expanded_bytes = 0
        self._image = image
        self._listed = 0
        self._blocks: set[int] = set()
        # By the number of a fragment block: how much of it files have.
        self._tails: dict[int, int] = {}

    @property
    def block_count(self) -> int:
        return len(self._blocks)

    @property
    def fragment_count(self) -> int:
        """Of the fragment blocks, those that a file has a part of."""
        return len(self._tails)

    def add_file(self, file: Inode) -> None:
        self._listed += file.list_length
        if self._listed > _MAX_LISTED:
            message = f"the image's files have more than {_MAX_LISTED:,} blocks"
            raise ImageUnsupportedError(message)
        block_size = self._image.superblock.block_size
        position, offset, holes = file.start, 0, 0
        for size in self._image.block_sizes(file):
            wanted = min(file.size - offset, block_size)
            if size:
                self._add_block(position, size, wanted)
            else:
                holes += wanted
            position += size & BLOCK_SIZE_MASK
            offset += wanted
        if file.sparse > holes:
            raise ImageCorruptError("more of it is said to be holes than there are")
        if offset < file.size:
            self._add_tail(file.fragment, file.offset + file.size - offset)

    def read_all(self) -> None:
        """Expand everything that the files refer to."""
        fragments = set()
        for number, needed in self._tails.items():
            position, size = self._image.fragment_block(number)
            fragments.add(self._packed(position, size, needed))
        if fragments & self._blocks or len(fragments) != len(self._tails):
            raise ImageCorruptError("the image has a block that is two things at once")
        end = SIZE
        for packed in sorted(self._blocks | fragments):
            position, size, wanted = _unpacked(packed)
            if position < end:
                raise ImageCorruptError(f"the image has two blocks in one place, at {position}")
            end = position + (size & BLOCK_SIZE_MASK)
            found = len(self._image.read_block(position, size))
            if found < wanted or (found > wanted and packed not in fragments):
                raise ImageCorruptError(
                    f"the block at {position} has {found} bytes, and {wanted} are expected"
                )
            self.stored_bytes += size & BLOCK_SIZE_MASK
            self.expanded_bytes += found
            if self.expanded_bytes > _MAX_EXPANDED:
                message = f"the image's files have more than {_MAX_EXPANDED:,} bytes"
                raise ImageUnsupportedError(message)

    def _add_block(self, position: int, size: int, wanted: int) -> None:
        self._blocks.add(self._packed(position, size, wanted))
        if len(self._blocks) > _MAX_BLOCKS:
            message = f"the image has more than {_MAX_BLOCKS:,} data blocks: use larger ones"
            raise ImageUnsupportedError(message)

    def _add_tail(self, fragment: int, needed: int) -> None:
        superblock = self._image.superblock
        if fragment >= superblock.fragments:
            raise ImageCorruptError(f"fragment {fragment} is not in the image")
        if needed > superblock.block_size:
            raise ImageCorruptError("its end is behind the end of a fragment")
        self._tails[fragment] = max(needed, self._tails.get(fragment, 0))

    def _packed(self, position: int, size: int, wanted: int) -> int:
        stored = size & BLOCK_SIZE_MASK
        end = self._image.superblock.inode_table
        if size >> _STORED_BITS or not stored or position < SIZE or position + stored > end:
            raise ImageCorruptError(f"a block at {position} is outside of the image's data")
        return (position << _STORED_BITS | size) << _EXPANDED_BITS | wanted


def _unpacked(packed: int) -> tuple[int, int, int]:
    wanted = packed & (1 << _EXPANDED_BITS) - 1
    packed >>= _EXPANDED_BITS
    return packed >> _STORED_BITS, packed & (1 << _STORED_BITS) - 1, wanted
