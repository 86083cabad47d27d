"""Check a flat image against its recipe, byte by byte: no codec, every region by itself.

Regions are checked by several threads at once: hashing is slower than the storage may be.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shared.image.errors import ImageCorruptError
from shared.image.making.parallel import Region, Stop, in_parallel
from shared.image.recipe import Recipe, Segment

_CHUNK: Final = 1 << 20


def verify_image(path: Path, recipe: Recipe, cancelled: threading.Event | None = None) -> None:
    """Return if every byte of the image is what the recipe says. Blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stop = Stop(cancelled or threading.Event())
        check = ImageCheck(fd, recipe, path.name, stop)
        check.frame()
        in_parallel(check.regions, recipe.regions, stop)
    finally:
        os.close(fd)


def verify_slowly(path: Path, recipe: Recipe) -> Iterator[int]:
    """The same, by a caller who decides about the pace: says how many bytes it has just read.

    What the storage has is read, and not what memory still holds.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        check = ImageCheck(fd, recipe, path.name, Stop(threading.Event()))
        check.frame()
        for region in recipe.regions:
            part = check.region(region)
            for piece in check.pieces(region.offset, region.offset + region.length):
                part.take(piece)
                yield len(piece)
            part.end()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


class ImageCheck:
    """The parts of a check, for whoever makes an image and knows which part is there."""

    def __init__(self, fd: int, recipe: Recipe, name: str, stop: Stop) -> None:
        self._fd = fd
        self._recipe = recipe
        self._name = name
        self._stop = stop

    def frame(self) -> None:
        """The size, the superblock, and the zeros between the regions."""
        size = os.fstat(self._fd).st_size
        if size != self._recipe.size:
            raise ImageCorruptError(
                f"{self._name} has {size} bytes, its recipe says {self._recipe.size}"
            )
        superblock = bytes.fromhex(self._recipe.superblock)
        if os.pread(self._fd, len(superblock), 0) != superblock:
            self.differs("its superblock")
        end = len(superblock)
        for region in self._recipe.regions:
            self._expect_zeros(end, region.offset)
            end = region.offset + region.length
        self._expect_zeros(end, size)

    def regions(self, regions: list[Region]) -> None:
        for region in regions:
            check = self.region(region)
            check.read(region.offset, region.offset + region.length)
            check.end()

    def region(self, region: Region) -> "RegionCheck":
        return RegionCheck(self, region)

    def _expect_zeros(self, start: int, end: int) -> None:
        if any(any(piece) for piece in self.pieces(start, end)):
            self.differs("the padding between its parts")

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        """Each is good until the next one is asked for."""
        buffer = memoryview(bytearray(min(end - start, _CHUNK)))
        while start < end:
            self._stop.check()
            size = os.preadv(self._fd, [buffer[: end - start]], start)
            if not size:
                raise ImageCorruptError(f"{self._name} became shorter while it was read")
            yield buffer[:size]
            start += size

    def differs(self, what: str) -> None:
        raise ImageCorruptError(f"{self._name} is damaged: {what} is not what the recipe says")


class RegionCheck:
    """One region, told piece by piece in their order; `end` compares."""

    def __init__(self, image: ImageCheck, region: Region) -> None:
        self._image = image
        self._region = region
        self._digest = hashlib.sha256()

    def read(self, start: int, end: int) -> None:
        for piece in self._image.pieces(start, end):
            self.take(piece)

    def take(self, piece: memoryview) -> None:
        """What follows in this region, by who has it in memory."""
        self._digest.update(piece)

    def end(self) -> None:
        region = self._region
        if self._digest.hexdigest() != region.sha256:
            self._image.differs(
                f"the data of pack {region.pack}" if isinstance(region, Segment) else "its tables"
            )
