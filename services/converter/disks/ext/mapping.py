"""Where the content of an ext inode lies: by a tree of extents, or by blocks of block numbers."""

from collections.abc import Iterator
from struct import Struct
from typing import Final, Protocol

from services.converter.disks.filesystem import MAX_PIECES, Piece, damaged
from services.converter.disks.volume import unpacked

_HEADER: Final = Struct("<HHHH")
_EXTENT: Final = Struct("<IHHI")
_INDEX: Final = Struct("<IIH")
_ENTRY: Final = 12
_MAGIC: Final = 0xF30A
_MAX_DEPTH: Final = 5
# From here on an extent is space that was set aside, and reads as zeros.
_UNWRITTEN: Final = 0x8000
_DIRECT: Final = 12


class Blocks(Protocol):
    """A file system's blocks, by number."""

    block_size: int

    def block(self, number: int) -> bytes: ...


class _Steps:
    """Counts what one file's map makes us do: damaged ones lead in circles."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._left = MAX_PIECES

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise damaged(f"inode {self._number} is in more than {MAX_PIECES:,} pieces")


def extents(fs: Blocks, root: bytes, number: int) -> Iterator[Piece]:
    """Of the 60 bytes in an inode; `number` is told in errors."""
    steps = _Steps(number)
    end = 0
    for first, count, start in _leaves(fs, root, None, number, steps):
        steps.take()
        if first < end or not count:
            raise damaged(f"inode {number} has parts that overlap")
        end = first + count
        if start is not None:
            size = fs.block_size
            yield Piece(first * size, count * size, start * size)


def _leaves(
    fs: Blocks, data: bytes, depth: int | None, number: int, steps: _Steps
) -> Iterator[tuple[int, int, int | None]]:
    magic, entries, _, found = unpacked(_HEADER, data)
    if magic != _MAGIC or found > _MAX_DEPTH:
        raise damaged(f"inode {number} has a broken map")
    if depth is not None and (found != depth or not entries):
        raise damaged(f"inode {number} has a broken map")
    for at in range(_ENTRY, _ENTRY * (entries + 1), _ENTRY):
        if found:
            steps.take()
            _, low, high = unpacked(_INDEX, data, at)
            yield from _leaves(fs, fs.block(low | high << 32), found - 1, number, steps)
            continue
        first, count, high, low = unpacked(_EXTENT, data, at)
        if count > _UNWRITTEN:
            yield first, count - _UNWRITTEN, None
        else:
            yield first, count, low | high << 32


def block_lists(fs: Blocks, root: bytes, number: int, size: int) -> Iterator[Piece]:
    """As ext2 has it: twelve blocks, and then lists of blocks, and lists of those."""
    steps = _Steps(number)
    block = fs.block_size
    most = -(-size // block)
    start = place = count = 0
    for at, found in _listed(fs, root, most, steps):
        if count and found == place + count and at == start + count:
            count += 1
            continue
        if count:
            steps.take()
            yield Piece(start * block, count * block, place * block)
        start, place, count = at, found, 1
    if count:
        yield Piece(start * block, count * block, place * block)


def _listed(fs: Blocks, root: bytes, most: int, steps: _Steps) -> Iterator[tuple[int, int]]:
    """The blocks that are no holes: where they belong, and where they are."""
    numbers = Struct("<15I").unpack(root)
    for at in range(min(_DIRECT, most)):
        if numbers[at]:
            yield at, numbers[at]
    per_list = fs.block_size // 4
    at = _DIRECT
    for level in (1, 2, 3):
        if at >= most:
            return
        if numbers[_DIRECT + level - 1]:
            yield from _below(fs, numbers[_DIRECT + level - 1], at, steps, level=level, most=most)
        at += per_list**level


def _below(
    fs: Blocks, block: int, at: int, steps: _Steps, *, level: int, most: int
) -> Iterator[tuple[int, int]]:
    steps.take()
    covers = (fs.block_size // 4) ** (level - 1)
    for (found,) in Struct("<I").iter_unpack(fs.block(block)):
        if at >= most:
            return
        if found and level == 1:
            yield at, found
        elif found:
            yield from _below(fs, found, at, steps, level=level - 1, most=most)
        at += covers
