"""Finds the root file system in a file: the file itself, or of the first partition that has one."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from services.converter.disks.errors import DiskDamagedError, DiskUnsupportedError
from services.converter.disks.ext.filesystem import open_ext
from services.converter.disks.filesystem import FileSystem
from services.converter.disks.known import known_as
from services.converter.disks.partitions import has_gpt, partitions
from services.converter.disks.qcow2 import MAGIC as QCOW2
from services.converter.disks.qcow2 import Qcow2
from services.converter.disks.vmdk import MAGIC as VMDK
from services.converter.disks.vmdk import TEXT, Vmdk
from services.converter.disks.volume import FileVolume, Volume
from services.converter.disks.xfs.filesystem import open_xfs
from shared.formats import DiskFormat

_OF_ROOTS: Final = frozenset((b"bin", b"usr"))
_MOST_NAMES: Final = 4096
_SHOWN: Final = 8
_TAR: Final = "mount what you need where you may, and import a tar of it"
_DISKS: Final[Mapping[str, tuple[tuple[bytes, ...], Callable[[FileVolume], Volume]]]] = {
    "qcow2": ((QCOW2,), Qcow2),
    "vmdk": ((VMDK, TEXT), Vmdk),
}
_FILE_SYSTEMS: Final = {"ext4": "ext", "xfs": "xfs"}


@dataclass(frozen=True, slots=True)
class Root:
    """A file system to make an image of; `partition` is 0 if there are none."""

    fs: FileSystem
    partition: int


def root_in(fd: int, format_: DiskFormat) -> Root:
    """What is in a file of that format; DiskUnsupportedError if that is no root."""
    file = FileVolume(fd, os.fstat(fd).st_size)
    volume = _volume(file, format_)
    if not has_gpt(volume):
        fs = _file_system(volume)
        if fs is not None:
            if fs.kind != _FILE_SYSTEMS.get(format_, fs.kind):
                raise DiskUnsupportedError(f"the file is no {format_} file system, but {fs.kind}")
            return Root(fs, 0)
    if format_ in _FILE_SYSTEMS:
        raise DiskUnsupportedError(f"the file is no {format_} file system{_known(volume)}")
    found = partitions(volume)
    if not found:
        raise DiskUnsupportedError(
            f"the disk has neither a file system that can be read (ext2, ext3, ext4, XFS) nor a "
            f"table of partitions{_known(volume)}"
        )
    others = []
    for each in found:
        try:
            fs = _file_system(each.volume)
            if fs is not None and _looks_like_root(fs):
                return Root(fs, each.number)
        except (DiskDamagedError, DiskUnsupportedError) as exc:
            others.append(f"{each.number}: {exc.message}")
        else:
            what = "none that is known" if fs is None else f"{fs.kind}, without /etc and /usr"
            known = known_as(each.volume) if fs is None else None
            others.append(f"{each.number}: {known[0] if known else what}")
    more = f"; and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    raise DiskUnsupportedError(
        "no partition of the disk has the root of a Linux system by ext2, ext3, ext4 or XFS "
        f"({'; '.join(others[:_SHOWN])}{more}): {_TAR}"
    )


def _volume(file: FileVolume, format_: DiskFormat) -> Volume:
    if format_ not in _DISKS:
        return file
    marks, disk = _DISKS[format_]
    if not any(file.size >= len(mark) and file.read(0, len(mark)) == mark for mark in marks):
        raise DiskUnsupportedError(f"the file is no {format_} image{_known(file)}")
    return disk(file)


def _file_system(volume: Volume) -> FileSystem | None:
    return open_ext(volume) or open_xfs(volume)


def _looks_like_root(fs: FileSystem) -> bool:
    names = {name for name, _ in islice(fs.node(fs.root).names(), _MOST_NAMES)}
    return b"etc" in names and not names.isdisjoint(_OF_ROOTS)


def _known(volume: Volume) -> str:
    known = known_as(volume)
    if known is None:
        return ""
    what, todo = known
    return f", but {what}: {todo}" if todo else f", but {what}"
