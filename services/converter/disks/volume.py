"""Bytes at places: a file, a disk in it, a partition of that. What ends too early is damaged."""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, Generic, Protocol, TypeVar

from services.converter.disks.errors import DiskDamagedError

T = TypeVar("T")

SECTOR: Final = 512


class Volume(Protocol):
    """All of it blocks."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes; DiskDamagedError where there are fewer."""


@dataclass(frozen=True, slots=True)
class FileVolume:
    """A regular file, by its descriptor."""

    fd: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        check_inside(self.size, offset, length)
        data = os.pread(self.fd, length, offset)
        while len(data) < length:
            more = os.pread(self.fd, length - len(data), offset + len(data))
            if not more:
                raise DiskDamagedError("the file became shorter while it was read")
            data += more
        return data

    def read_padded(self, offset: int, length: int) -> bytes:
        """As `read`, but the last bytes may be missing: writers do not fill up the last cluster."""
        there = max(0, min(length, self.size - offset))
        if not there:
            check_inside(self.size, offset, length)
        return self.read(offset, there).ljust(length, b"\0")


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a volume."""

    volume: Volume
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        check_inside(self.size, offset, length)
        return self.volume.read(self.start + offset, length)


class Recent(Generic[T]):
    """The results that were wanted last, by number."""

    def __init__(self, make: Callable[[int], T], most: int) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[int, T] = OrderedDict()

    def get(self, key: int) -> T:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        made = self._kept[key] = self._make(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return made


def check_inside(size: int, offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > size:
        raise DiskDamagedError(
            "the disk image ends before what it says to hold: it is damaged, or was not copied "
            "to its end"
        )


def unpacked(layout: Struct, data: bytes, at: int = 0) -> tuple[Any, ...]:
    """Of numbers that stand where hostile others say."""
    if at < 0 or at + layout.size > len(data):
        raise DiskDamagedError("a structure on the disk leads out of its block")
    return layout.unpack_from(data, at)


def sliced(data: bytes, at: int, length: int) -> bytes:
    """As `unpacked`, of bytes."""
    if at < 0 or length < 0 or at + length > len(data):
        raise DiskDamagedError("a structure on the disk leads out of its block")
    return data[at : at + length]
