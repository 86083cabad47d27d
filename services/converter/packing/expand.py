"""A layer's blob becomes its tar, whichever way it is compressed: a piece at a time, bounded.

Docker and containerd take gzip, zstd, bzip2 and xz, and tell them apart by their first bytes, as we
do. What follows the last stream is ignored, as the command gzip does: if the tar then lacks
something, its digest tells. Only behind frames of zstd nothing else may come.
"""

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.tar_header import BLOCK, parse_header
from shared.image.codecs import load

CHUNK: Final = 1 << 20
READ: Final = 512 << 10
# What a decompressor gets at a time: as a rule it becomes less than a chunk, and none is left over.
_STEP: Final = 256 << 10
# Smaller pieces are put together: each costs two hand-overs between threads.
_SMALL: Final = 256 << 10
# Of a stream just begun: many are as small as one file, and what they leave over is copied.
_FIRST_STEP: Final = 4 << 10
_LONGEST_HEADER: Final = 4 << 20
# What the strongest levels of zstd and xz want, and what all decoders give them by default.
_MEMORY: Final = 128 << 20
_WINDOW_LOG: Final = 27

_GZIP: Final = b"\x1f\x8b"
_GZIP_CHECKSUM, _GZIP_EXTRA, _GZIP_NAME, _GZIP_COMMENT = 2, 4, 8, 16
_BZIP2: Final = b"BZh"
_XZ: Final = b"\xfd7zXZ\0"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
# Sixteen kinds of frames to skip, which parallel compressors write first.
_SKIPPABLE: Final = b"\x2a\x4d\x18"


class Blob(Protocol):
    """Compressed bytes as they arrive."""

    def peek(self, size: int) -> bytes: ...

    def read(self, size: int = ..., /) -> bytes: ...


class _Decompressor(Protocol):
    """As bz2, lzma and isal have it."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: memoryview, max_length: int, /) -> bytes: ...


def expanded(blob: Blob) -> Iterator[bytes]:
    """The tar in chunks of at most 1 MiB; the codecs' own errors where it makes no sense."""
    magic = blob.peek(BLOCK)
    if _is_tar(magic):
        # Its first name may begin like anything.
        return iter(lambda: blob.read(CHUNK), b"")
    if magic.startswith(_GZIP):
        return _joined(_gzip_members(blob))
    if magic.startswith(_BZIP2):
        return _joined(_bzip2_streams(blob))
    if magic.startswith(_XZ):
        return _joined(_xz_streams(blob))
    if magic.startswith(_ZSTD) or (magic[1:4] == _SKIPPABLE and magic[0] >> 4 == 5):
        return _zstd_frames(blob)
    return iter(lambda: blob.read(CHUNK), b"")


def _is_tar(block: bytes) -> bool:
    if len(block) < BLOCK:
        return False
    try:
        parse_header(block)
    except LayerInvalidError:
        return False
    return True


def _gzip_members(blob: Blob) -> Iterator[bytes]:
    isal = load("isal.igzip_lib")

    def inflater() -> _Decompressor:
        new: _Decompressor = isal.IgzipDecompressor(flag=isal.DECOMP_GZIP_NO_HDR_VER)
        return new

    return _streams(blob, _GZIP, inflater, _after_gzip_header)


def _bzip2_streams(blob: Blob) -> Iterator[bytes]:
    return _streams(blob, _BZIP2, load("bz2").BZ2Decompressor, _no_header)


def _xz_streams(blob: Blob) -> Iterator[bytes]:
    lzma = load("lzma")

    def decoder() -> _Decompressor:
        new: _Decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        return new

    return _streams(blob, _XZ, decoder, _no_header)


def _after_gzip_header(data: bytes, at: int) -> int | None:
    """Where the deflated data begin; None if that is yet to come.

    ISA-L 2.32 would read the header itself, but fails where it arrives in two pieces.
    """
    flags = data[at + 3 : at + 4] or b"\0"
    end = at + 10
    if flags[0] & _GZIP_EXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for text in (_GZIP_NAME, _GZIP_COMMENT):
        if flags[0] & text:
            zero = data.find(b"\0", end)
            if zero < 0:
                return None
            end = zero + 1
    if flags[0] & _GZIP_CHECKSUM:
        end += 2
    return end if end <= len(data) else None


def _no_header(_: bytes, at: int) -> int:
    return at


def _streams(
    blob: Blob,
    magic: bytes,
    new_decompressor: Callable[[], _Decompressor],
    after_header: Callable[[bytes, int], int | None],
) -> Iterator[bytes]:
    """One stream after another; zeros may lie between them."""
    data, at = b"", 0
    while True:
        while (start := after_header(data, at)) is None:
            data, at = data[at:] + _more(blob), 0
            if len(data) > _LONGEST_HEADER:
                raise EOFError("its header does not end")
        at = start
        decompressor = new_decompressor()
        step = _FIRST_STEP
        while not decompressor.eof:
            piece = memoryview(b"")
            if decompressor.needs_input:
                if at == len(data):
                    data, at = _more(blob), 0
                piece = memoryview(data)[at : at + step]
                at += len(piece)
                step = min(4 * step, _STEP)
            if expanded_piece := decompressor.decompress(piece, CHUNK):
                yield expanded_piece
        at -= len(decompressor.unused_data)
        if not data.startswith(magic, at):
            data, at = _next_stream(blob, data[at:], magic), 0
            if not data:
                return


def _more(blob: Blob) -> bytes:
    data = blob.read(READ)
    if not data:
        raise EOFError("it ends too early")
    return data


def _next_stream(blob: Blob, data: bytes, magic: bytes) -> bytes:
    """Where the next one begins, behind zeros; nothing if there is something else, or the end."""
    data = data.lstrip(b"\0")
    while len(data) < len(magic):
        more = blob.read(READ)
        if not more:
            return b""
        data = (data + more).lstrip(b"\0")
    return data if data.startswith(magic) else b""


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    length = 0
    for piece in pieces:
        if length + len(piece) > CHUNK:
            yield b"".join(waiting)
            waiting, length = [], 0
        waiting.append(piece)
        length += len(piece)
        if length >= _SMALL:
            yield b"".join(waiting)
            waiting, length = [], 0
    if waiting:
        yield b"".join(waiting)


def _zstd_frames(blob: Blob) -> Iterator[bytes]:
    zstandard = load("zstandard")
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
    reader = decompressor.stream_reader(blob, read_size=READ, read_across_frames=True)
    try:
        while chunk := reader.read(CHUNK):
            yield chunk
    except zstandard.ZstdError as exc:
        if "too much memory" in str(exc):
            message = f"a layer's zstd window is larger than the {_MEMORY >> 20} MiB allowed"
            raise LayerInvalidError(message) from exc
        if "Dictionary mismatch" in str(exc):
            message = "a layer was compressed with a zstd dictionary, which no image brings along"
            raise LayerInvalidError(message) from exc
        raise
