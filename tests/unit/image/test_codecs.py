"""Blocks of every compressor: honest ones, and ones that lie about their size."""

import lzma
import struct
import zlib
from contextlib import suppress

import lz4.block
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from shared.image.codecs import block_codec, block_expander
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.recipe import Compression
from shared.image.squashfs.superblock import Compressor

BLOCK = b"some text, some more text, " * 300 + bytes(range(256))
DICTIONARY = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
MACHINE_CODE = [{"id": lzma.FILTER_X86}, *DICTIONARY]


FILTER = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}


def lzma_alone(data: bytes, size: int | None = None) -> bytes:
    """As squashfs-tools write it: the size is in the header, and no mark at the end."""
    alone = lzma.compress(data, format=lzma.FORMAT_ALONE, filters=[FILTER])
    return alone[:5] + struct.pack("<Q", len(data) if size is None else size) + alone[13:]


HONEST: list[tuple[Compressor, bytes]] = [
    ("gzip", zlib.compress(BLOCK)),
    ("zstd", zstandard.compress(BLOCK)),
    ("lz4", lz4.block.compress(BLOCK, store_size=False)),
    ("lz4", lz4.block.compress(BLOCK, store_size=False, mode="high_compression")),
    ("xz", lzma.compress(BLOCK, check=lzma.CHECK_CRC32, filters=DICTIONARY)),
    ("xz", lzma.compress(BLOCK, check=lzma.CHECK_CRC32, filters=MACHINE_CODE)),
    ("lzma", lzma_alone(BLOCK)),
]
COMPRESSORS: list[Compressor] = ["gzip", "zstd", "lz4", "xz", "lzma"]


@pytest.mark.parametrize(("compressor", "packed"), HONEST)
def test_a_block_is_expanded_up_to_its_limit_and_not_beyond(
    compressor: Compressor, packed: bytes
) -> None:
    expander = block_expander(compressor)
    assert expander.decompress(packed, len(BLOCK)) == BLOCK
    assert expander.decompress(packed, 1 << 20) == BLOCK
    for broken, limit in ((packed, len(BLOCK) - 1), (packed[:-5], 1 << 20), (b"", 1 << 20)):
        with pytest.raises(ImageCorruptError):
            expander.decompress(broken, limit)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("level", [1, 3, 9])
def test_what_we_compress_comes_back(compression: Compression, level: int) -> None:
    codec = block_codec(compression, level)
    assert codec.decompress(codec.compress(BLOCK), len(BLOCK)) == BLOCK


def xz_with_dictionary(size_code: int) -> bytes:
    """A valid header that asks for a dictionary of another size; 40 is 4 GiB."""
    packed = bytearray(lzma.compress(BLOCK, check=lzma.CHECK_CRC32, filters=DICTIONARY))
    header_size = (packed[12] + 1) * 4
    header = packed[12 : 12 + header_size - 4]
    assert header[2:4] == bytes([lzma.FILTER_LZMA2, 1])
    header[4] = size_code
    packed[12 : 12 + header_size] = header + struct.pack("<I", zlib.crc32(header))
    return bytes(packed)


HUGE_SIZE = b"\xff\xff\xff\xff\xff\xff\xff\x7f"
BOMBS: list[tuple[Compressor, bytes, str]] = [
    ("gzip", zlib.compress(bytes(64 << 20)), "holds more"),
    ("zstd", zstandard.compress(bytes(64 << 20)), "claims to hold more"),
    ("zstd", b"\x28\xb5\x2f\xfd\xe0" + HUGE_SIZE, "claims to hold more"),
    # No size, a window of 3.75 TiB, and a block that is one byte 128 KiB times.
    ("zstd", b"\x28\xb5\x2f\xfd\x00\xff\x03\x00\x10x", "cannot be expanded"),
    ("lz4", lz4.block.compress(bytes(64 << 20), store_size=False), "cannot be expanded"),
    ("xz", lzma.compress(bytes(8 << 20)), "holds more|[Mm]emory"),
    ("xz", xz_with_dictionary(40), "[Mm]emory"),
    ("lzma", lzma_alone(BLOCK, size=1 << 40), "cut short"),
    ("lzma", lzma_alone(bytes(8 << 20)), "holds more"),
    ("lzma", b"\x5d\xff\xff\xff\xff" + struct.pack("<Q", 100) + bytes(50), "lzma block"),
]


@pytest.mark.parametrize(("compressor", "packed", "reason"), BOMBS)
def test_a_bomb_is_corrupt(compressor: Compressor, packed: bytes, reason: str) -> None:
    with pytest.raises(ImageCorruptError, match=reason):
        block_expander(compressor).decompress(packed, 8192)


def test_the_dictionary_of_an_honest_xz_block_of_any_size_is_accepted() -> None:
    for code in (0, 10, 16):
        assert block_expander("xz").decompress(xz_with_dictionary(code), 1 << 20) == BLOCK


@pytest.mark.parametrize("compressor", COMPRESSORS)
@given(st.binary(max_size=200), st.integers(0, len(BLOCK)))
@example(b"", 0)
def test_garbage_is_corrupt_or_small(compressor: Compressor, garbage: bytes, cut: int) -> None:
    expander = block_expander(compressor)
    packed = next(packed for name, packed in HONEST if name == compressor)
    for block in (garbage, packed[:cut] + garbage, packed[: cut // 2] + garbage + packed[cut:]):
        with suppress(ImageCorruptError):
            assert len(expander.decompress(block, 8192)) <= 8192


def test_lzo_is_refused_with_advice() -> None:
    with pytest.raises(ImageUnsupportedError, match="mksquashfs -comp zstd"):
        block_expander("lzo")
