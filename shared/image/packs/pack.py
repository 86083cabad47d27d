"""The pack file: a layer's squashfs blocks, then its compressed index, then a fixed footer.

The data region starts at offset 0, so that a file system can share its blocks with a flat image.
"""

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from shared.image.codecs import library_version, load
from shared.image.errors import PackCorruptError, PackVersionError
from shared.image.packs.index import PackIndex, decode, encode
from shared.image.recipe import Compression, PackKey, PackOptions

PACK_VERSION: Final = 2
MAGIC: Final = b"DRAYPACK"
_FOOTER = struct.Struct("<8sHHIQQQ32s32s32s")
_COMPRESSIONS: Final[tuple[Compression, ...]] = ("gzip", "zstd")
_INDEX_LEVEL = 3
# Far above the index of the largest layer that the packer accepts; bounds a damaged footer.
_MAX_INDEX_SIZE = 1 << 33


@dataclass(frozen=True, slots=True)
class Footer:
    """Where the parts of a pack are and what their bytes must be."""

    compression: Compression
    block_size: int
    data_length: int
    index_length: int
    index_size: int
    data_sha256: str
    index_sha256: str
    key: PackKey


def pack_key(diff_id: str, options: PackOptions, *, literal: bool = False) -> PackKey:
    """The name of the pack of one layer: everything that decides the pack's bytes.

    In a `literal` one no name is a mark that hides others.
    """
    facts: dict[str, object] = {
        "pack": PACK_VERSION,
        "diff_id": diff_id,
        "library": library_version(options.compression),
        "options": options.model_dump(mode="json"),
    }
    if literal:
        facts["literal"] = True
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_index(file: BinaryIO, index: PackIndex, key: PackKey) -> None:
    """Complete a pack whose data region has just been written."""
    raw = encode(index)
    packed: bytes = load("zstandard").ZstdCompressor(level=_INDEX_LEVEL).compress(raw)
    file.write(packed)
    file.write(
        _FOOTER.pack(
            MAGIC,
            PACK_VERSION,
            _COMPRESSIONS.index(index.compression),
            index.block_size,
            index.data_length,
            len(packed),
            len(raw),
            bytes.fromhex(index.data_sha256),
            hashlib.sha256(packed).digest(),
            bytes.fromhex(key),
        )
    )


def read_footer(path: Path) -> Footer:
    """How large a pack's parts are; nothing of it is read but its end."""
    with path.open("rb") as file:
        return footer_of(file, path)


def read_index(path: Path, key: PackKey) -> PackIndex:
    """The checked index of the pack `key`; the data region is not read."""
    with path.open("rb") as file:
        footer = footer_of(file, path)
        if footer.key != key:
            raise PackCorruptError(f"pack {path.name} holds the pack {footer.key}")
        file.seek(footer.data_length)
        packed = file.read(footer.index_length)
    if hashlib.sha256(packed).hexdigest() != footer.index_sha256:
        raise PackCorruptError(f"the index of pack {path.name} is damaged")
    raw: bytes = load("zstandard").ZstdDecompressor().decompress(packed)
    if len(raw) != footer.index_size:
        raise PackCorruptError(f"the index of pack {path.name} has the wrong size")
    index = decode(raw, footer.compression, footer.block_size)
    index.data_length = footer.data_length
    index.data_sha256 = footer.data_sha256
    return index


def footer_of(file: BinaryIO, path: Path) -> Footer:
    """What an open pack says of itself; `path` is only for words."""
    size = os.fstat(file.fileno()).st_size
    raw = os.pread(file.fileno(), _FOOTER.size, max(0, size - _FOOTER.size))
    if len(raw) != _FOOTER.size or raw[:8] != MAGIC:
        raise PackCorruptError(f"{path.name} does not end like a pack")
    _, version, compression, block_size, data, packed, index, data_sha, index_sha, key = (
        _FOOTER.unpack(raw)
    )
    if version != PACK_VERSION:
        raise PackVersionError(f"pack {path.name} has version {version}, not {PACK_VERSION}")
    sound = compression < len(_COMPRESSIONS) and index <= _MAX_INDEX_SIZE
    if not sound or data + packed + _FOOTER.size != size:
        raise PackCorruptError(f"the footer of pack {path.name} is damaged")
    return Footer(
        compression=_COMPRESSIONS[compression],
        block_size=block_size,
        data_length=data,
        index_length=packed,
        index_size=index,
        data_sha256=data_sha.hex(),
        index_sha256=index_sha.hex(),
        key=key.hex(),
    )
