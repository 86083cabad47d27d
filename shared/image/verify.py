"""Check a flat image against its recipe, byte by byte: no codec, one pass over the file."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final

from shared.image.errors import ImageCorruptError
from shared.image.recipe import Recipe
from shared.models import Sha256

_CHUNK: Final = 1 << 20
_ZEROS: Final = bytes(_CHUNK)


def verify_image(path: Path, recipe: Recipe) -> Sha256:
    """The sha256 of the whole file, once all of it is what the recipe says. Blocks."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != recipe.size:
            raise ImageCorruptError(f"{path.name} has {size} bytes, its recipe says {recipe.size}")
        reader = _Reader(file, path.name)
        superblock = bytes.fromhex(recipe.superblock)
        reader.expect_bytes(superblock, "its superblock")
        for segment in recipe.segments:
            reader.expect_zeros(segment.offset)
            reader.expect_digest(segment.length, segment.sha256, f"the data of pack {segment.pack}")
        reader.expect_zeros(recipe.tables.offset)
        reader.expect_digest(recipe.tables.length, recipe.tables.sha256, "its tables")
        reader.expect_zeros(recipe.size)
        return reader.whole.hexdigest()


class _Reader:
    """Reads on and on, adding to the digest of the whole."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.whole = hashlib.sha256()
        self._file = file
        self._name = name
        self._position = 0

    def expect_bytes(self, expected: bytes, what: str) -> None:
        if self._read(len(expected)) != expected:
            self._differs(what)

    def expect_digest(self, length: int, sha256: Sha256, what: str) -> None:
        digest = hashlib.sha256()
        while length:
            piece = self._read(min(length, _CHUNK))
            digest.update(piece)
            length -= len(piece)
        if digest.hexdigest() != sha256:
            self._differs(what)

    def expect_zeros(self, until: int) -> None:
        while self._position < until:
            piece = self._read(min(until - self._position, _CHUNK))
            if piece != _ZEROS[: len(piece)]:
                self._differs("the padding between its parts")

    def _read(self, length: int) -> bytes:
        piece = self._file.read(length)
        if len(piece) != length:
            raise ImageCorruptError(f"{self._name} became shorter while it was read")
        self.whole.update(piece)
        self._position += length
        return piece

    def _differs(self, what: str) -> None:
        raise ImageCorruptError(f"{self._name} is damaged: {what} is not what the recipe says")
