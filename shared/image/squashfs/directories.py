"""Directory listings: runs of entries that share an inode block, and an index for large ones."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from shared.image.errors import ImageUnsupportedError
from shared.image.kinds import METADATA_BLOCK

_HEADER = struct.Struct("<IIi")
_NO_HEADER = bytes(_HEADER.size)
_ENTRY = struct.Struct("<HhHH").pack
_ENTRY_SIZE = 8
MAX_RUN: Final = 256
_MAX_INDEX: Final = 0xFFFF
_MIN_DELTA, _MAX_DELTA = -0x8000, 0x7FFF


# Name, kind, inode number and inode reference.
Entry = tuple[bytes, int, int, int]


@dataclass(slots=True)
class Listing:
    """An encoded listing; `index` has the position and first name of the runs to search from."""

    data: bytearray = field(default_factory=bytearray)
    index: list[tuple[int, bytes]] = field(default_factory=list)


def encode_listing(entries: Iterable[Entry]) -> Listing:
    """The listing of entries that are sorted by name."""
    listing = Listing()
    data = listing.data
    header = count = base = indexed = 0
    block = -1
    for name, kind, number, reference in entries:
        delta = number - base
        # A reader that uses the index must reach any name within one metadata block.
        far = len(data) + _ENTRY_SIZE + len(name) - indexed > METADATA_BLOCK
        if (
            far
            or block != reference >> 16
            or not _MIN_DELTA <= delta <= _MAX_DELTA
            or count == MAX_RUN
        ):
            if count:
                _HEADER.pack_into(data, header, count - 1, block, base)
            if far:
                indexed = len(data)
                listing.index.append((indexed, name))
            header = len(data)
            data += _NO_HEADER
            block = reference >> 16
            base, delta, count = number, 0, 0
        data += _ENTRY(reference & 0xFFFF, delta, kind, len(name) - 1)
        data += name
        count += 1
    if count:
        _HEADER.pack_into(data, header, count - 1, block, base)
    if len(listing.index) > _MAX_INDEX:
        raise ImageUnsupportedError("a directory has too many entries for one squashfs")
    return listing
