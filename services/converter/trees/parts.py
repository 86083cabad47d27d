"""Where a listing is cut, so that what is packed once is found again in later versions of the tree.

A cut is made where a part has become large enough and a path's digest says so: then a file more or
less moves the cuts of its own part only, and those behind it stay. How large that is follows from
the size of the whole tree, since an image has at most some two hundred parts.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from pydantic import TypeAdapter

from services.converter.trees.rows import encoded, stamped
from shared.image.tar.row import Row
from shared.models import Bytes, Sha256

MAX_PARTS: Final = 200
LEAST_WEIGHT: Final = 2 << 30
# What a file costs besides its bytes, in the bytes that cost as much.
_FILE_WEIGHT: Final = 64 << 10
# Once a part is large enough, cuts are so likely that it grows by about a quarter until one; but
# never certain, or a file more would move the cuts between large files for ever.
_CUTS_PER_PART: Final = 4
_LIKELIEST: Final = 0.5
_MOST: Final = 3
_CHECKSUMS: Final = 1 << 32
_VERSION: Final = b"dray tree part 1\n"


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the tree's rows, which follow each other."""

    start: Bytes
    """Where in the spool they begin."""
    length: Bytes
    rows: Bytes
    size: Bytes
    """Of the files' content, without holes."""
    latest: int
    """When the one that was changed last was changed."""
    stamp: Sha256


PARTS: Final[TypeAdapter[tuple[Part, ...]]] = TypeAdapter(tuple[Part, ...])


def least_weight(rows: int, size: int, least: int = LEAST_WEIGHT) -> int:
    """How large parts of such a tree are at least; steps, so that growth seldom moves cuts."""
    whole = weight_of(rows, size)
    while whole > least * MAX_PARTS:
        least *= 2
    return least


def weight_of(rows: int, size: int) -> int:
    return rows * _FILE_WEIGHT + size


def cut(rows: Iterable[Row], least: int, identity: bytes) -> list[Part]:
    """`identity` says which tree it is: equal rows of another are another's."""
    parts: list[Part] = []
    begun = _Begun(0, identity)
    for row in rows:
        begun.add(row)
        weight = weight_of(begun.rows, begun.size)
        if weight >= least and (weight >= _MOST * least or _is_cut(row, least)):
            parts.append(begun.part())
            begun = _Begun(begun.start + begun.length, identity)
    if begun.rows:
        parts.append(begun.part())
    return parts


def _is_cut(row: Row, least: int) -> bool:
    likely = min(_LIKELIEST, _CUTS_PER_PART * weight_of(1, row.stored) / least)
    return crc32(row.path) < likely * _CHECKSUMS


class _Begun:
    """A part to which rows are added."""

    def __init__(self, start: int, identity: bytes) -> None:
        self.start = start
        self.length = self.rows = self.size = 0
        self._latest = 0
        self._digest = hashlib.sha256(_VERSION + identity)

    def add(self, row: Row) -> None:
        data = encoded(row)
        self._digest.update(stamped(data))
        self.length += len(data)
        self.rows += 1
        self.size += row.stored
        self._latest = max(self._latest, row.changed)

    def part(self) -> Part:
        return Part(
            start=self.start,
            length=self.length,
            rows=self.rows,
            size=self.size,
            latest=self._latest,
            stamp=self._digest.hexdigest(),
        )
