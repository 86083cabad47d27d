"""The block codecs of squashfs, loaded when first used: a distributor or an agent installs none.

A codec may be shared by threads: the state of a compressor belongs to the thread that uses it.
"""

import importlib
import threading
import zlib
from types import ModuleType
from typing import Final, Literal, Protocol

from shared.errors import MissingDependencyError
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.recipe import Compression
from shared.image.squashfs.superblock import Compressor

# What a block may ask for to be expanded: a block of 1 MiB needs a dictionary or window of 1 MiB,
# and a hostile one says that it needs gigabytes.
_MAX_MEMORY: Final = 8 << 20


class BlockExpander(Protocol):
    """Expands single blocks of at most 1 MiB, and believes nothing that they say of themselves."""

    def decompress(self, block: bytes, limit: int, /) -> bytes: ...


class BlockCodec(BlockExpander, Protocol):
    """Compresses single blocks, too."""

    def compress(self, block: bytes, /) -> bytes: ...


def block_codec(compression: Compression, level: int = 3) -> BlockCodec:
    return Zstd(level) if compression == "zstd" else Gzip(level)


def block_expander(compressor: Compressor) -> BlockExpander:
    """For images that others made, too."""
    match compressor:
        case "gzip" | "zstd":
            return block_codec(compressor)
        case "lz4":
            return Lz4()
        case "xz" | "lzma":
            return Lzma(compressor)
        case "lzo":
            message = (
                "the image is compressed by lzo, which cannot be read here: unpack it by "
                "unsquashfs, and pack it again by mksquashfs -comp zstd"
            )
            raise ImageUnsupportedError(message)


def library_version(compression: Compression) -> str:
    """Which library's output the blocks are: part of a pack's key, since it decides the bytes."""
    if compression == "zstd":
        version = ".".join(str(part) for part in load("zstandard").ZSTD_VERSION)
        return f"zstd-{version}"
    return f"isal-{load('isal').ISAL_VERSION}+zlib-{zlib.ZLIB_RUNTIME_VERSION}"


def load(module: str) -> ModuleType:
    """Import a codec, or say which package is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0]
        message = f"the Python package {package} is not installed: install dray[codecs]"
        raise MissingDependencyError(message) from exc


class Zstd(threading.local):
    """zstd frames that carry their content's size and no checksum."""

    def __init__(self, level: int) -> None:
        zstandard = load("zstandard")
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_MEMORY)
        self._frame_content_size = zstandard.frame_content_size
        self._error: type[Exception] = zstandard.ZstdError

    def compress(self, block: bytes, /) -> bytes:
        result: bytes = self._compressor.compress(block)
        return result

    def decompress(self, block: bytes, limit: int, /) -> bytes:
        try:
            # A frame's own claim decides what the library allocates: it must not be believed.
            if self._frame_content_size(block) > limit:
                raise ImageCorruptError(f"a block claims to hold more than {limit} bytes")
            result: bytes = self._decompressor.decompress(block, max_output_size=limit)
        except self._error as exc:
            raise ImageCorruptError(f"a zstd block cannot be expanded: {exc}") from exc
        return result


class Gzip:
    """zlib streams; up to level 3 by ISA-L, which is many times faster, above by zlib itself."""

    def __init__(self, level: int) -> None:
        self._level = min(level, 9)

    def compress(self, block: bytes, /) -> bytes:
        if self._level > 3:
            return zlib.compress(block, self._level)
        result: bytes = load("isal.isal_zlib").compress(block, self._level)
        return result

    def decompress(self, block: bytes, limit: int, /) -> bytes:
        stream = zlib.decompressobj()
        try:
            result = stream.decompress(block, limit)
            # A stream that ends exactly at the limit may still owe its checksum.
            rest = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
        except zlib.error as exc:
            raise ImageCorruptError(f"a gzip block cannot be expanded: {exc}") from exc
        if rest or not stream.eof:
            raise ImageCorruptError(f"a gzip block is cut short or holds more than {limit} bytes")
        return result


class Lz4:
    """Bare lz4 blocks, for reading."""

    def __init__(self) -> None:
        block = load("lz4.block")
        self._decompress = block.decompress
        self._error: type[Exception] = block.LZ4BlockError

    def decompress(self, block: bytes, limit: int, /) -> bytes:
        try:
            result: bytes = self._decompress(block, uncompressed_size=limit)
        except self._error as exc:
            raise ImageCorruptError(f"an lz4 block cannot be expanded: {exc}") from exc
        return result


class Lzma:
    """Streams of xz, with or without a filter for machine code, and of its predecessor lzma."""

    def __init__(self, compressor: Literal["xz", "lzma"]) -> None:
        # A part of the standard library that not every build of Python has.
        lzma = load("lzma")
        self._name = compressor
        self._format = lzma.FORMAT_XZ if compressor == "xz" else lzma.FORMAT_ALONE
        self._open = lzma.LZMADecompressor
        self._error: type[Exception] = lzma.LZMAError

    def decompress(self, block: bytes, limit: int, /) -> bytes:
        try:
            stream = self._open(self._format, memlimit=_MAX_MEMORY)
            result: bytes = stream.decompress(block, limit)
            # As with gzip: what ends at the limit may still owe its checksum.
            rest = b"" if stream.eof else stream.decompress(b"", 1)
        except (self._error, EOFError) as exc:
            raise ImageCorruptError(f"an {self._name} block cannot be expanded: {exc}") from exc
        if rest or not stream.eof:
            message = f"an {self._name} block is cut short or holds more than {limit} bytes"
            raise ImageCorruptError(message)
        return result
