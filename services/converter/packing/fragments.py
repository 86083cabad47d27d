"""Small files, and the ends of larger ones, share blocks; what is there already is not added again.

A table finds an earlier end with the same checksum, and then the bytes themselves decide. It has
a fixed size and forgets: a layer of millions of files costs no more memory, and a layer of
ordinary size loses nothing.
"""

from array import array
from typing import Final

from services.converter.packing.blocks import BlockWriter
from shared.image.codecs import load
from shared.image.packs.index import PackIndex

# What is shorter is not worth looking for: ten times the files, a hundredth of the gain.
_WORTH_LOOKING: Final = 1024
_SLOTS: Final = 1 << 18
# Of fragments kept expanded: equal files lie close to each other, as a rule.
_KEPT_BYTES: Final = 2 << 20


class Fragments:
    """Fills fragments, in the order in which the files come."""

    def __init__(self, blocks: BlockWriter, index: PackIndex) -> None:
        self._blocks = blocks
        self._index = index
        self._number = 0
        self._fragment = bytearray()
        self._crc32 = load("isal.isal_zlib").crc32
        # One more than the file's row, or 0, and its end's checksum.
        self._files = array("I", bytes(4 * _SLOTS))
        self._checksums = array("I", bytes(4 * _SLOTS))
        self._kept: dict[int, bytes] = {}

    def add(self, file: int, end: bytes) -> tuple[int, int]:
        """The fragment that holds the end of this file, and where in it."""
        if len(end) >= _WORTH_LOOKING:
            twin = self._twin(file, end)
            if twin is not None:
                return twin
        if len(self._fragment) + len(end) > self._index.block_size:
            self.flush()
        offset = len(self._fragment)
        self._fragment += end
        return self._number, offset

    def flush(self) -> None:
        """Write the fragment that is being filled."""
        if self._fragment:
            block = bytes(self._fragment)
            self._blocks.add_fragment(block)
            self._keep(self._number, block)
            self._number += 1
            self._fragment.clear()

    def _twin(self, file: int, end: bytes) -> tuple[int, int] | None:
        """Where the same bytes are already; else this file is remembered for others."""
        checksum: int = self._crc32(end)
        slot = (checksum ^ len(end)) % _SLOTS
        other = self._files[slot] - 1
        if other >= 0 and self._checksums[slot] == checksum:
            index = self._index
            if index.file_sizes[other] % index.block_size == len(end):
                fragment = index.file_fragments[other]
                offset = index.file_fragment_offsets[other]
                if self._content(fragment)[offset : offset + len(end)] == end:
                    return fragment, offset
        self._files[slot] = file + 1
        self._checksums[slot] = checksum
        return None

    def _content(self, fragment: int) -> bytes | bytearray:
        if fragment == self._number:
            return self._fragment
        content = self._kept.get(fragment)
        if content is None:
            content = self._blocks.read_fragment(fragment)
            self._keep(fragment, content)
        return content

    def _keep(self, fragment: int, content: bytes) -> None:
        self._kept[fragment] = content
        if len(self._kept) > max(2, _KEPT_BYTES // self._index.block_size):
            del self._kept[next(iter(self._kept))]
