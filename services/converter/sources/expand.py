"""A compressed archive, expanded once to a file without a name: it ends with whoever uses it."""

import os
import tempfile
import threading
import zlib
from pathlib import Path
from typing import BinaryIO, Final, cast

from services.converter.packing.limits import Limits
from services.converter.sources.errors import ArchiveInvalidError, ArchiveTooLargeError
from services.converter.sources.opening import reading
from shared.image.codecs import load
from shared.image.errors import WorkCancelledError

_CHUNK: Final = 1 << 20


def expanded(
    file: BinaryIO, called: str, scratch: Path, limits: Limits, cancelled: threading.Event
) -> BinaryIO:
    """`file` itself if it is not compressed, else what it expands to; the other is closed. Blocks.

    Images need their parts in another order than an archive has them, so that a compressed one
    would have to be read several times.
    """
    try:
        with reading(called):
            stream = _decompressing(file)
    except BaseException:
        file.close()
        raise
    if stream is None:
        return file
    size = os.fstat(file.fileno()).st_size
    with file:
        scratch.mkdir(parents=True, exist_ok=True)
        target = cast("BinaryIO", tempfile.TemporaryFile(dir=scratch))  # noqa: SIM115 - handed on
        done = 0
        try:
            while piece := _next(stream, called):
                done += len(piece)
                _check(done, size, limits, called)
                _go_on(cancelled)
                target.write(piece)
            target.flush()
        except BaseException:
            target.close()
            raise
    return target


def _decompressing(file: BinaryIO) -> BinaryIO | None:
    start = os.pread(file.fileno(), 4, 0)
    if start[:2] == b"\x1f\x8b":
        return cast("BinaryIO", load("isal.igzip").IGzipFile(fileobj=file, mode="rb"))
    if start == b"\x28\xb5\x2f\xfd" or (start[1:] == b"\x2a\x4d\x18" and start[0] >> 4 == 5):
        decompressor = load("zstandard").ZstdDecompressor()
        stream = decompressor.stream_reader(file, read_across_frames=True, closefd=False)
        return cast("BinaryIO", stream)
    return None


def _check(done: int, size: int, limits: Limits, called: str) -> None:
    bomb = done > limits.ratio_from and done > limits.max_ratio * size
    if bomb or done > limits.max_bytes:
        raise ArchiveTooLargeError(
            f"{called} expands to more than {done >> 30} GiB, which is not allowed: expand it "
            "yourself if you trust it"
        )


def _go_on(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise WorkCancelledError("expanding the archive was cancelled")


def _next(stream: BinaryIO, called: str) -> bytes:
    try:
        return stream.read(_CHUNK)
    except Exception as exc:
        codec = type(exc).__name__ in {"ZstdError", "IsalError"}
        if codec or isinstance(exc, EOFError | OSError | zlib.error):
            raise ArchiveInvalidError(f"{called} cannot be decompressed: {exc}") from exc
        raise
