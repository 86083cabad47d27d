"""Whether a file is a disk image, by its first bytes."""

import os
from typing import Final

from services.converter.disks.known import known_as
from services.converter.disks.partitions import has_gpt, has_mbr
from services.converter.disks.qcow2 import MAGIC as QCOW2
from services.converter.disks.vmdk import MAGIC as VMDK
from services.converter.disks.vmdk import TEXT
from services.converter.disks.volume import FileVolume
from services.converter.disks.xfs.superblock import MAGIC as XFS
from shared.formats import DiskFormat

_BEGINNINGS: Final[tuple[tuple[bytes, DiskFormat], ...]] = (
    (QCOW2, "qcow2"),
    (VMDK, "vmdk"),
    (TEXT, "vmdk"),
    (XFS, "xfs"),
)
_EXT_AT: Final = 1024 + 56
_EXT: Final = b"\x53\xef"


def look_of_disk(fd: int) -> DiskFormat | None:
    """None if it is none; also what cannot be read is a disk, so that it is told what it is."""
    file = FileVolume(fd, os.fstat(fd).st_size)
    for mark, format_ in _BEGINNINGS:
        if file.size >= len(mark) and file.read(0, len(mark)) == mark:
            return format_
    if has_gpt(file):
        return "disk"
    if file.size > _EXT_AT + 2 and file.read(_EXT_AT, 2) == _EXT:
        return "ext4"
    return "disk" if has_mbr(file) or known_as(file) is not None else None
