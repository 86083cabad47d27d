"""What a pack says about its layer: columns, one row per tar entry, in the tar's order.

Columns instead of objects keep a million entries at some 60 bytes each in memory, and make the
encoding a matter of copying arrays. All numbers are little-endian, as on every host we run on.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise

from shared.image import kinds
from shared.image.errors import PackCorruptError
from shared.image.recipe import Compression

Xattrs = tuple[tuple[bytes, bytes], ...]
_LENGTH = struct.Struct("<Q")


_U8 = partial(array, "B")
_U16 = partial(array, "H")
_U32 = partial(array, "I")
_U64 = partial(array, "Q")


@dataclass(slots=True, kw_only=True)
class PackIndex:
    """One layer; all offsets are relative to the pack's data region."""

    compression: Compression
    block_size: int
    data_length: int = 0
    data_sha256: str = ""

    # One row per entry. `parents` are rows of `directories`; `xattrs` rows of `xattr_sets` plus 1.
    kinds: "array[int]" = field(default_factory=_U8)
    modes: "array[int]" = field(default_factory=_U16)
    uids: "array[int]" = field(default_factory=_U32)
    gids: "array[int]" = field(default_factory=_U32)
    mtimes: "array[int]" = field(default_factory=_U32)
    xattrs: "array[int]" = field(default_factory=_U32)
    parents: "array[int]" = field(default_factory=_U32)
    # The entry's row among files, targets or devices, as its kind wants.
    details: "array[int]" = field(default_factory=_U32)
    names: list[bytes] = field(default_factory=list)

    # One row per file. Its size says how many whole blocks it has, the first of them being
    # `file_blocks` among all blocks; the rest is in its fragment.
    file_sizes: "array[int]" = field(default_factory=_U64)
    file_starts: "array[int]" = field(default_factory=_U64)
    file_blocks: "array[int]" = field(default_factory=_U64)
    file_fragments: "array[int]" = field(default_factory=_U32)
    file_fragment_offsets: "array[int]" = field(default_factory=_U32)
    # On-disk sizes of all blocks in their order; fragments as pairs of offset and on-disk size.
    blocks: "array[int]" = field(default_factory=_U32)
    fragments: "array[int]" = field(default_factory=_U64)

    devices: "array[int]" = field(default_factory=_U32)
    directories: list[bytes] = field(default_factory=list)
    targets: list[bytes] = field(default_factory=list)
    whiteout_parents: list[bytes] = field(default_factory=list)
    whiteout_names: list[bytes] = field(default_factory=list)
    opaques: list[bytes] = field(default_factory=list)
    xattr_sets: list[Xattrs] = field(default_factory=list)

    def target(self, row: int) -> bytes:
        return self.targets[self.details[row]]

    def file_block_sizes(self, file: int) -> "array[int]":
        first = self.file_blocks[file]
        return self.blocks[first : first + self.file_sizes[file] // self.block_size]


_COLUMNS = (
    "kinds",
    "modes",
    "uids",
    "gids",
    "mtimes",
    "xattrs",
    "parents",
    "details",
    "file_sizes",
    "file_starts",
    "file_blocks",
    "file_fragments",
    "file_fragment_offsets",
    "blocks",
    "fragments",
    "devices",
)
_STRINGS = ("names", "directories", "targets", "whiteout_parents", "whiteout_names", "opaques")


def encode(index: PackIndex) -> bytes:
    """Every column as length and bytes, then every list of strings, then the xattr sets."""
    parts = [getattr(index, name).tobytes() for name in _COLUMNS]
    for name in _STRINGS:
        parts += _encode_strings(getattr(index, name))
    pairs = [pair for pairs in index.xattr_sets for pair in pairs]
    parts.append(array("I", map(len, index.xattr_sets)).tobytes())
    parts += _encode_strings([key for key, _ in pairs])
    parts += _encode_strings([value for _, value in pairs])
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def decode(raw: bytes, compression: Compression, block_size: int) -> PackIndex:
    """The inverse of `encode`. The digest guards the bytes; this only guards against ourselves."""
    index = PackIndex(compression=compression, block_size=block_size)
    parts = _parts(memoryview(raw))
    try:
        for name in _COLUMNS:
            getattr(index, name).frombytes(next(parts))
        for name in _STRINGS:
            getattr(index, name).extend(_decode_strings(parts))
        counts = array("I")
        counts.frombytes(next(parts))
        pairs = list(zip(_decode_strings(parts), _decode_strings(parts), strict=True))
        ends = [0, *accumulate(counts)]
        index.xattr_sets.extend(tuple(pairs[a:b]) for a, b in pairwise(ends))
        whole = next(parts, None) is None
    except (StopIteration, ValueError) as exc:
        raise PackCorruptError("a pack's index cannot be decoded") from exc
    if not whole or not _consistent(index):
        raise PackCorruptError("a pack's index contradicts itself")
    return index


def _consistent(index: PackIndex) -> bool:
    entries = [getattr(index, name) for name in _COLUMNS[:8]]
    files = [getattr(index, name) for name in _COLUMNS[8:13]]
    return (
        {len(column) for column in entries} == {len(index.names)}
        and len({len(column) for column in files}) == 1
        and max(index.parents, default=-1) < len(index.directories)
        and max(index.xattrs, default=0) <= len(index.xattr_sets)
        and index.kinds.count(kinds.FILE) == len(index.file_sizes)
        and index.kinds.count(kinds.SYMLINK) + index.kinds.count(kinds.HARD_LINK)
        == len(index.targets)
        and max(index.file_blocks, default=0) <= len(index.blocks)
        and len(index.fragments) % 2 == 0
        and len(index.whiteout_parents) == len(index.whiteout_names)
    )


def _encode_strings(strings: list[bytes]) -> list[bytes]:
    return [array("I", map(len, strings)).tobytes(), b"".join(strings)]


def _decode_strings(parts: Iterator[memoryview]) -> list[bytes]:
    lengths = array("I")
    lengths.frombytes(next(parts))
    blob = next(parts).tobytes()
    if sum(lengths) != len(blob):
        raise ValueError("lengths and text of a list of strings differ")
    return [blob[a:b] for a, b in pairwise((0, *accumulate(lengths)))]


def _parts(raw: memoryview) -> Iterator[memoryview]:
    at = 0
    while at < len(raw):
        if len(raw) - at < _LENGTH.size:
            raise ValueError("the index ends within a length")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if length > len(raw) - at:
            raise ValueError("the index ends within a column")
        yield raw[at : at + length]
        at += length
