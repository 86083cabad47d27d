"""A tar's bytes, from chunks of any size to exactly as many as are asked for."""

from collections.abc import Callable
from typing import Protocol

from services.converter.packing.errors import LayerInvalidError


class TarInput(Protocol):
    """What a tar is read from."""

    def take(self, size: int) -> bytes: ...

    def skip(self, size: int) -> None: ...

    def skip_padding(self, size: int) -> None: ...

    def at_end(self) -> bool: ...


class TarBytes:
    """Reads over a function that returns chunks, and b"" at the end."""

    def __init__(self, next_chunk: Callable[[], bytes]) -> None:
        self._next_chunk = next_chunk
        self._chunk = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes; callers bound the size."""
        end = self._at + size
        if end > len(self._chunk):
            self._fill(size)
            end = size
        taken = self._chunk[self._at : end]
        self._at = end
        return taken

    def skip(self, size: int) -> None:
        while size > len(self._chunk) - self._at:
            size -= len(self._chunk) - self._at
            self._chunk = self._next_chunk()
            self._at = 0
            if not self._chunk:
                raise _cut_short()
        self._at += size

    def skip_padding(self, size: int) -> None:
        """As `skip`, but the data may end before it: some writers leave the last padding out."""
        while size and not self.at_end():
            step = min(size, len(self._chunk) - self._at)
            self._at += step
            size -= step

    def at_end(self) -> bool:
        if self._at == len(self._chunk):
            self._chunk = self._next_chunk()
            self._at = 0
        return not self._chunk

    def _fill(self, size: int) -> None:
        parts = [self._chunk[self._at :]]
        have = len(parts[0])
        while have < size:
            chunk = self._next_chunk()
            if not chunk:
                raise _cut_short()
            parts.append(chunk)
            have += len(chunk)
        self._chunk = b"".join(parts)
        self._at = 0


def _cut_short() -> LayerInvalidError:
    return LayerInvalidError("a layer's tar ends in the middle of an entry")
