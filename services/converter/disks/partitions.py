"""The partitions of a disk: of a GPT, or of an MBR with its chain of logical ones."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final
from uuid import UUID

from services.converter.disks.errors import DiskDamagedError
from services.converter.disks.volume import SECTOR, Volume, Window, sliced, unpacked

_MARK: Final = b"\x55\xaa"
_MARK_AT: Final = 510
_MBR_AT: Final = 446
_MBR_ENTRY: Final = Struct("<B3xB3xII")
_STATES: Final = frozenset((0, 0x80))
_EXTENDED: Final = frozenset((0x05, 0x0F, 0x85))
_GPT: Final = b"EFI PART"
_GPT_HEADER: Final = Struct("<8sIII4xQQQQ16sQIII")
_GPT_ENTRY: Final = Struct("<16s16sQQ")
_SECTORS: Final = (512, 4096)
_MAX_ENTRIES: Final = 1024
_MAX_LOGICAL: Final = 128
# Types of the Discoverable Partitions Specification: the root of this architecture or of that.
_ROOTS: Final = frozenset(
    UUID(text).bytes_le
    for text in (
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
        "b921b045-1df0-41c3-af44-4c6f280d3fae",
        "44479540-f297-41b2-9af7-d131d5f0458a",
        "69dad710-2ce4-4e3c-b16c-21a1d49abed3",
        "c31c45e6-3f39-412e-80fb-4809c4980599",
    )
)


@dataclass(frozen=True, slots=True)
class Partition:
    """`is_root`: its type says so."""

    number: int
    volume: Volume
    is_root: bool = False


def has_gpt(volume: Volume) -> bool:
    return _gpt_sector(volume) is not None


def has_mbr(volume: Volume) -> bool:
    """Boot code of other systems ends like one, too; and anything does by chance."""
    if volume.size <= SECTOR:
        return False
    data = volume.read(0, SECTOR)
    if data[_MARK_AT:] != _MARK:
        return False
    found = [unpacked(_MBR_ENTRY, data, _MBR_AT + 16 * index) for index in range(4)]
    used = [each for each in found if each[1]]
    return bool(used) and all(
        state in _STATES and first and count for state, _, first, count in used
    )


def partitions(volume: Volume) -> list[Partition]:
    """Those that say to be a root first, else as they are numbered; none: there is no table."""
    sector = _gpt_sector(volume)
    if sector is not None:
        found = list(_of_gpt(volume, sector))
    elif has_mbr(volume):
        found = list(_of_mbr(volume))
    else:
        found = []
    return sorted(found, key=lambda each: not each.is_root)


def _gpt_sector(volume: Volume) -> int | None:
    for sector in _SECTORS:
        if volume.size >= 2 * sector and volume.read(sector, len(_GPT)) == _GPT:
            return sector
    return None


def _of_gpt(volume: Volume, sector: int) -> Iterator[Partition]:
    head = volume.read(sector, SECTOR)
    (
        _, _, size, checksum, _, _, _, _, _, at, count, width, entries_checksum,
    ) = unpacked(_GPT_HEADER, head)  # fmt: skip
    body = sliced(head, 0, min(size, SECTOR))
    good = zlib.crc32(body[:16] + bytes(4) + body[20:]) == checksum
    if not good or count > _MAX_ENTRIES or not _GPT_ENTRY.size <= width <= SECTOR:
        raise _damaged()
    table = volume.read(at * sector, count * width)
    if zlib.crc32(table) != entries_checksum:
        raise _damaged()
    for number in range(count):
        kind, _, first, last = unpacked(_GPT_ENTRY, table, number * width)
        if kind != bytes(16) and first <= last:
            part = _window(volume, first * sector, (last - first + 1) * sector)
            yield Partition(number + 1, part, kind in _ROOTS)


def _of_mbr(volume: Volume) -> Iterator[Partition]:
    for number, (kind, first, count) in enumerate(_entries(volume, 0), 1):
        if kind in _EXTENDED:
            yield from _logical(volume, first)
        elif kind and count:
            yield Partition(number, _window(volume, first * SECTOR, count * SECTOR))


def _logical(volume: Volume, extended: int) -> Iterator[Partition]:
    """Each is told of by a sector that tells where the next such sector is."""
    at = extended
    for number in range(5, 5 + _MAX_LOGICAL):
        (kind, first, count), (following_kind, following, _) = _entries(volume, at * SECTOR)[:2]
        if kind and kind not in _EXTENDED and count:
            yield Partition(number, _window(volume, (at + first) * SECTOR, count * SECTOR))
        if following_kind not in _EXTENDED or not following:
            return
        at = extended + following
    raise _damaged()


def _entries(volume: Volume, at: int) -> list[tuple[int, int, int]]:
    data = volume.read(at, SECTOR)
    if data[_MARK_AT:] != _MARK:
        raise _damaged()
    found = [unpacked(_MBR_ENTRY, data, _MBR_AT + 16 * index) for index in range(4)]
    return [(kind, first, count) for _, kind, first, count in found]


def _window(volume: Volume, start: int, size: int) -> Window:
    """A file system tells by itself whether it is there whole."""
    return Window(volume, start, max(0, min(size, volume.size - start)))


def _damaged() -> DiskDamagedError:
    return DiskDamagedError(
        "the disk's table of partitions is damaged: look at it by sfdisk --verify"
    )
