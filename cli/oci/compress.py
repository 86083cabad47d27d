"""Layers compressed by all cores, in their order, as bytes that depend on nothing else."""

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Literal

from shared.image.codecs import load

Compression = Literal["gzip", "zstd", "none"]
Pieces = Iterator[bytes]

_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3
_WINDOW: Final = 32 << 10
# Magic, deflate, no name, no time, no hint, an unknown system.
_GZIP_HEAD: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
_LAST_BLOCK: Final = b"\x03\x00"
_GZIP_TAIL: Final = struct.Struct("<II")


def compressor(compression: Compression) -> Callable[[Pieces], Pieces]:
    match compression:
        case "gzip":
            return gzipped
        case "zstd":
            return zstandard
        case "none":
            return lambda pieces: pieces


def gzipped(pieces: Pieces) -> Pieces:
    """One gzip member. Each piece is deflated by itself, knowing what went before it."""
    yield _GZIP_HEAD
    check, size, before = 0, 0, b""
    workers = len(os.sched_getaffinity(0))
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="gzip") as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(_deflated, piece, before))
                before = piece[-_WINDOW:]
                check = zlib.crc32(piece, check)
                size += len(piece)
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
    yield _LAST_BLOCK + _GZIP_TAIL.pack(check, size & 0xFFFFFFFF)


def _deflated(piece: bytes, before: bytes) -> bytes:
    """Blocks that end on a byte, and are not the last."""
    stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    return stream.compress(piece) + stream.flush(zlib.Z_SYNC_FLUSH)


def zstandard(pieces: Pieces) -> Pieces:
    threads = len(os.sched_getaffinity(0))
    # More than one, or the bytes were others on a machine with one core.
    stream = load("zstandard").ZstdCompressor(_ZSTD_LEVEL, threads=max(threads, 2)).compressobj()
    for piece in pieces:
        if made := stream.compress(piece):
            yield made
    yield stream.flush()
