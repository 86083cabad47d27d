"""Make a flat image out of a recipe and the store: copying only, no codec.

The superblock comes last, so that a file that was left half-made is no squashfs image.
"""

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from shared.image.errors import PackCorruptError, WorkCancelledError
from shared.image.kinds import ALIGNMENT
from shared.image.recipe import PackKey, Recipe
from shared.models import Sha256

_PIECE: Final = 32 << 20
_BUFFER: Final = 1 << 20
_FICLONERANGE: Final = 0x4020940D
_CLONE = struct.Struct("=qQQQ")
# What a kernel or a file system answers that cannot do it for this pair of files.
_NOT_HERE: Final = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADF)
)


class Regions(Protocol):
    """Where the parts of an image come from; `PackStore` is one."""

    def open_pack(self, key: PackKey) -> BinaryIO: ...

    def open_tables(self, sha256: Sha256) -> BinaryIO: ...


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
    progress = _Progress(on_progress, cancelled)
    with _opened(target) as fd:
        os.ftruncate(fd, 0)  # what is not written below must be zero
        for segment in recipe.segments:
            with store.open_pack(segment.pack) as source:
                _copy(source.fileno(), fd, segment.length, segment.offset, progress)
        with store.open_tables(recipe.tables.sha256) as source:
            _copy(source.fileno(), fd, recipe.tables.length, recipe.tables.offset, progress)
        os.ftruncate(fd, recipe.size)
        _write_all(fd, bytes.fromhex(recipe.superblock), 0)


class _Progress:
    """Counts bytes, and stops the work between two pieces when its owner wants that."""

    def __init__(self, report: Callable[[int], None], cancelled: threading.Event) -> None:
        self._report = report
        self._cancelled = cancelled
        self._done = 0
        self.check()

    def check(self) -> None:
        if self._cancelled.is_set():
            raise WorkCancelledError("making the image was cancelled")

    def advance(self, length: int) -> None:
        self._done += length
        self._report(self._done)
        self.check()


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


def _copy(source: int, target: int, length: int, offset: int, progress: _Progress) -> None:
    """The first `length` bytes of `source` to `offset`, sharing blocks where that is possible."""
    if os.fstat(source).st_size < length:
        raise PackCorruptError("a file in the pack store is shorter than the recipe says")
    done = _clone(source, target, length, offset)
    if done:
        progress.advance(done)
    in_kernel = True
    while done < length:
        wanted = min(length - done, _PIECE)
        copied = _copy_in_kernel(source, target, wanted, done, offset) if in_kernel else 0
        if not copied:
            in_kernel = False
            copied = _copy_by_hand(source, target, min(wanted, _BUFFER), done, offset)
        done += copied
        progress.advance(copied)


def _clone(source: int, target: int, length: int, offset: int) -> int:
    whole = length - length % ALIGNMENT
    # A length of 0 would mean all of the source, its index included.
    if not whole or offset % ALIGNMENT:
        return 0
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE.pack(source, 0, whole, offset))
    except OSError as exc:
        if exc.errno not in _NOT_HERE:
            raise
        return 0
    return whole


def _copy_in_kernel(source: int, target: int, wanted: int, done: int, offset: int) -> int:
    try:
        return os.copy_file_range(source, target, wanted, done, offset + done)
    except OSError as exc:
        if exc.errno not in _NOT_HERE:
            raise
        return 0


def _copy_by_hand(source: int, target: int, wanted: int, done: int, offset: int) -> int:
    piece = os.pread(source, wanted, done)
    if not piece:
        raise PackCorruptError("a file in the pack store became shorter while it was copied")
    _write_all(target, piece, offset + done)
    return len(piece)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
