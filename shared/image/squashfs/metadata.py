"""Squashfs' metadata: streams of compressed 8 KiB blocks, and the lookup tables over them."""

import struct
from typing import Final

from shared.image.codecs import BlockCodec
from shared.image.errors import ImageUnsupportedError
from shared.image.kinds import METADATA_BLOCK, RAW_METADATA

_MAX_TABLE: Final = 1 << 32


def encode_block(codec: BlockCodec, raw: bytes) -> bytes:
    packed = codec.compress(raw)
    if len(packed) < len(raw):
        return struct.pack("<H", len(packed)) + packed
    return struct.pack("<H", len(raw) | RAW_METADATA) + raw


class MetadataWriter:
    """Bytes in, metadata blocks out. A reference is a block's start << 16 | offset within."""

    def __init__(self, codec: BlockCodec) -> None:
        self._codec = codec
        self._pending = bytearray()
        self._blocks: list[bytes] = []
        # Where each block starts in the table, the one that is being filled included.
        self._starts = [0]

    def write(self, data: bytes | bytearray) -> int:
        """Append `data`; returns the reference of its first byte."""
        pending = self._pending
        reference = self._starts[-1] << 16 | len(pending)
        pending += data
        while len(pending) >= METADATA_BLOCK:
            self._flush()
        return reference

    @property
    def complete_blocks(self) -> int:
        return len(self._blocks)

    def start_of(self, block: int) -> int:
        return self._starts[block]

    def finish(self) -> bytes:
        """The whole table."""
        if self._pending:
            self._flush()
        table = b"".join(self._blocks)
        if len(table) >= _MAX_TABLE:
            raise ImageUnsupportedError("the image has too many files for one squashfs")
        return table

    def _flush(self) -> None:
        block = encode_block(self._codec, bytes(self._pending[:METADATA_BLOCK]))
        del self._pending[:METADATA_BLOCK]
        self._blocks.append(block)
        self._starts.append(self._starts[-1] + len(block))


def lookup_table(codec: BlockCodec, raw: bytes, position: int) -> tuple[bytes, list[int]]:
    """`raw` as metadata blocks that will stand at `position`, and where each of them starts."""
    blocks = []
    starts = []
    for at in range(0, len(raw), METADATA_BLOCK):
        block = encode_block(codec, raw[at : at + METADATA_BLOCK])
        starts.append(position)
        position += len(block)
        blocks.append(block)
    return b"".join(blocks), starts


def pack_starts(starts: list[int]) -> bytes:
    return struct.pack(f"<{len(starts)}Q", *starts)
