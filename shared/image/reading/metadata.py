"""Squashfs' metadata, read back: streams of 8 KiB blocks, and the lookup tables over them.

An image may be damaged or hostile: every position is checked before it is followed, and nothing is
held but a bounded number of blocks.
"""

import os
import struct
from functools import lru_cache
from typing import BinaryIO, Final

from shared.image.codecs import BlockExpander
from shared.image.errors import ImageCorruptError
from shared.image.kinds import METADATA_BLOCK, RAW_METADATA

_CACHED_BLOCKS: Final = 256
# The blocks of a table that are at hand: 64 hold all owners that there can be.
_CACHED_ROWS: Final = 64
_BLOCK_HEADER: Final = 2


class Metadata:
    """Random access to metadata blocks, the latest of them kept."""

    def __init__(self, file: BinaryIO, expander: BlockExpander, end: int) -> None:
        self._fd = file.fileno()
        self._expander = expander
        self._end = end
        self.block = lru_cache(maxsize=_CACHED_BLOCKS)(self._read_block)

    def raw(self, position: int, size: int) -> bytes:
        if position + size > self._end:
            raise ImageCorruptError("the image refers to a place behind its end")
        data = os.pread(self._fd, size, position)
        if len(data) != size:
            raise ImageCorruptError("the image is shorter than it says")
        return data

    def _read_block(self, position: int) -> tuple[bytes, int]:
        """The content of the block at `position`, and where the next one is."""
        found = self.raw(
            position, max(0, min(_BLOCK_HEADER + METADATA_BLOCK, self._end - position))
        )
        size = int.from_bytes(found[:_BLOCK_HEADER], "little")
        stored = size & (RAW_METADATA - 1)
        following = _BLOCK_HEADER + stored
        if not stored or following > len(found):
            raise ImageCorruptError("the image has a metadata block of impossible size")
        data = found[_BLOCK_HEADER:following]
        if not size & RAW_METADATA:
            data = self._expander.decompress(data, METADATA_BLOCK)
        if not data:
            raise ImageCorruptError("the image has a metadata block without content")
        return data, position + following


class Cursor:
    """Reads on from a place in a stream of metadata blocks."""

    __slots__ = ("_block", "_end", "_metadata", "_next", "_offset", "_position")

    def __init__(self, metadata: Metadata, position: int, offset: int, end: int) -> None:
        self._metadata = metadata
        self._end = end
        self._move(position)
        if offset > len(self._block):
            raise ImageCorruptError("the image refers to a place behind a metadata block's end")
        self._offset = offset

    @property
    def place(self) -> tuple[int, int]:
        """Where a cursor that is to go on from here begins."""
        return self._position, self._offset

    def read(self, size: int) -> bytes:
        data = self._block[self._offset : self._offset + size]
        self._offset += size
        while len(data) < size:
            self._move(self._next)
            missing = size - len(data)
            data += self._block[:missing]
            self._offset = missing
        return data

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.read(layout.size))

    def number(self) -> int:
        return int.from_bytes(self.read(4), "little")

    def _move(self, position: int) -> None:
        if position >= self._end:
            raise ImageCorruptError("the image refers to a place behind a table's end")
        self._position = position
        self._block, self._next = self._metadata.block(position)


class Stream:
    """The metadata blocks between two positions; a reference is a block's start and an offset."""

    def __init__(self, metadata: Metadata, start: int, end: int) -> None:
        self._metadata = metadata
        self._start = start
        self._end = end

    def at(self, block: int, offset: int) -> Cursor:
        return Cursor(self._metadata, self._start + block, offset, self._end)

    def at_reference(self, reference: int) -> Cursor:
        return self.at(reference >> 16, reference & 0xFFFF)

    def resume(self, place: tuple[int, int]) -> Cursor:
        return Cursor(self._metadata, *place, self._end)


class LookupTable:
    """Rows of one size in metadata blocks whose positions are listed at the table's own."""

    def __init__(
        self, metadata: Metadata, position: int, *, rows: int, row_size: int, what: str
    ) -> None:
        self.rows = rows
        self._metadata = metadata
        self._position = position
        self._row_size = row_size
        self._what = what
        self._block = lru_cache(maxsize=_CACHED_ROWS)(self._read_block)

    def row(self, number: int) -> bytes:
        if number >= self.rows:
            raise ImageCorruptError(
                f"the image refers to {self._what} {number}, and has {self.rows} of them"
            )
        block, offset = divmod(number * self._row_size, METADATA_BLOCK)
        return self._block(block)[offset : offset + self._row_size]

    def _read_block(self, number: int) -> bytes:
        entry = self._metadata.raw(self._position + 8 * number, 8)
        position = int.from_bytes(entry, "little")
        # The list follows the blocks.
        if position >= self._position:
            raise ImageCorruptError(f"the image has its table of {self._what}s at no valid place")
        data, _ = self._metadata.block(position)
        left = self.rows * self._row_size - number * METADATA_BLOCK
        if len(data) != min(left, METADATA_BLOCK):
            raise ImageCorruptError(f"the image has a table of {self._what}s of the wrong size")
        return data
