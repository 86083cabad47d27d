"""Which earlier files of a layer might be equal to one that has whole blocks of its own.

Equal content compresses to equal blocks: files of one size whose blocks have the same sizes on
disk are compared there, and nobody has to compute or to remember a digest of what files hold.
"""

import os
from typing import Final

# What is remembered is bounded, whatever a layer holds; what comes later is stored as it is.
_MOST_SIZES: Final = 1 << 16
_MOST_RIVALS: Final = 8
_PIECE: Final = 1 << 20


class Twins:
    """The first few files of each size."""

    def __init__(self) -> None:
        self._by_size: dict[int, list[int]] = {}

    def suspect(self, file: int, size: int) -> bool:
        """Whether an earlier file is as large; if not, this one is remembered."""
        if size in self._by_size:
            return True
        if len(self._by_size) < _MOST_SIZES:
            self._by_size[size] = [file]
        return False

    def rivals(self, file: int, size: int) -> list[int]:
        """The files of this size that are stored, but for those that came later."""
        return [other for other in self._by_size[size] if other < file]

    def remember(self, file: int, size: int) -> None:
        rivals = self._by_size[size]
        if len(rivals) < _MOST_RIVALS:
            rivals.append(file)


def same_bytes(fd: int, one: int, other: int, length: int) -> bool:
    """Whether two ranges of a file, none of them beyond its end, hold the same."""
    for at in range(0, length, _PIECE):
        size = min(_PIECE, length - at)
        if os.pread(fd, size, one + at) != os.pread(fd, size, other + at):
            return False
    return True
