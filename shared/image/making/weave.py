"""Make a flat image out of a recipe and the store: copying only, no codec.

The superblock comes last, so that a file that was left half-made is no squashfs image.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from shared.image.errors import PackCorruptError, StoreUnavailableError
from shared.image.kinds import ALIGNMENT
from shared.image.making.parallel import Region, Stop
from shared.image.recipe import PackKey, Recipe, Segment
from shared.models import Sha256

_PIECE: Final = 16 << 20
_BUFFER: Final = 1 << 20
_FICLONERANGE: Final = 0x4020940D
_CLONE = struct.Struct("=qQQQ")


class Regions(Protocol):
    """Where the parts of an image come from; `PackStore` is one."""

    def open_pack(self, key: PackKey) -> BinaryIO: ...

    def open_tables(self, sha256: Sha256) -> BinaryIO: ...


class Progress:
    """Counts the bytes that threads have written, and stops them when their owner wants that."""

    def __init__(self, report: Callable[[int], None], stop: Stop) -> None:
        self._report = report
        self._stop = stop
        self._done = 0
        self._lock = threading.Lock()
        stop.check()

    def advance(self, length: int) -> None:
        with self._lock:
            self._done += length
            self._report(self._done)
        self._stop.check()


def weave(
    recipe: Recipe,
    store: Regions,
    target: int | Path,
    *,
    on_progress: Callable[[int], None],
    cancelled: threading.Event,
) -> None:
    """Fill `target`, an open file or the path of one to create or replace, with the image.

    `on_progress` gets the number of bytes written so far. Blocks: run it in a thread. Making the
    file durable and giving it its final name is the caller's part; nothing is verified here.
    """
    progress = Progress(on_progress, Stop(cancelled))
    with _opened(target) as fd:
        clear(recipe, fd)
        for region in recipe.regions:
            _copy_region(region, store, fd, progress)
        write_superblock(recipe, fd)


def clear(recipe: Recipe, fd: int) -> None:
    """Give the file its size, all zeros: what no region covers must be zero."""
    os.ftruncate(fd, 0)
    os.ftruncate(fd, recipe.size)


def source_of(region: Region, store: Regions) -> tuple[BinaryIO, int]:
    """The file that has the region's bytes, which the caller closes, and where they begin."""
    if isinstance(region, Segment):
        return store.open_pack(region.pack), region.source
    return store.open_tables(region.sha256), 0


def _copy_region(region: Region, store: Regions, fd: int, progress: Progress) -> None:
    source, start = source_of(region, store)
    with source:
        _Copy(source, start, fd, region.offset, region.length, progress).run()


def write_superblock(recipe: Recipe, fd: int) -> None:
    write_all(fd, bytes.fromhex(recipe.superblock), 0)


@contextmanager
def _opened(target: int | Path) -> Iterator[int]:
    if isinstance(target, int):
        yield target
        return
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A range of one file to a place in another, sharing blocks where that is possible.

    What the kernel cannot do for a pair of files is done by hand; so is what fails, since only
    there it shows whether the store or the target is to blame.
    """

    source: BinaryIO
    start: int
    target: int
    offset: int
    length: int
    progress: Progress

    def run(self) -> None:
        check_long_enough(self.source, self.start + self.length)
        done = clone(self.source, self.start, self.target, self.offset, self.length)
        if done:
            self.progress.advance(done)
        in_kernel = True
        while done < self.length:
            wanted = min(self.length - done, _PIECE)
            copied = self._in_kernel(wanted, done) if in_kernel else 0
            if not copied:
                in_kernel = False
                copied = self._by_hand(min(wanted, _BUFFER), done)
            self.progress.advance(copied)
            done += copied

    def _in_kernel(self, wanted: int, done: int) -> int:
        start, offset = self.start + done, self.offset + done
        try:
            return os.copy_file_range(self.source.fileno(), self.target, wanted, start, offset)
        except OSError:
            return 0

    def _by_hand(self, wanted: int, done: int) -> int:
        buffer = memoryview(bytearray(wanted))
        size = read_into(buffer, self.source, self.start + done)
        write_all(self.target, buffer[:size], self.offset + done)
        return size


def clone(source: BinaryIO, start: int, target: int, offset: int, length: int) -> int:
    """Share the source's blocks with the target, where the file system can; returns how many bytes.

    What is left is no whole block.
    """
    whole = length - length % ALIGNMENT
    # A length of 0 would mean all of the source, its index included.
    if not whole or offset % ALIGNMENT or start % ALIGNMENT:
        return 0
    request = _CLONE.pack(source.fileno(), start, whole, offset)
    try:
        fcntl.ioctl(target, _FICLONERANGE, request)
    except OSError:
        return 0
    return whole


def check_long_enough(source: BinaryIO, end: int) -> None:
    if os.fstat(source.fileno()).st_size < end:
        raise PackCorruptError("a file in the pack store is shorter than the recipe says")


def read_into(buffer: memoryview, source: BinaryIO, start: int) -> int:
    """Read from the store; returns how much it was, at least a byte."""
    try:
        size = os.preadv(source.fileno(), [buffer], start)
    except OSError as exc:
        raise StoreUnavailableError.because(exc, source.name) from exc
    if not size:
        raise PackCorruptError("a file in the pack store became shorter while it was copied")
    return size


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
