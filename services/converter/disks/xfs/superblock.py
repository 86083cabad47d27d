"""The beginning of an XFS: how large what is, and which features it has."""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from services.converter.disks.errors import DiskDamagedError, DiskUnsupportedError
from services.converter.disks.volume import SECTOR, Volume, check_inside, unpacked

MAGIC: Final = b"XFSB"
_FIXED: Final = Struct(">4sIQ32xQQ20xII4xIHHHH12x5BxB")
_MORE: Final = Struct(">192xB7xI12xI")
_DIRECTORY_2: Final = 0x2000
# In a version 4's second word of features, and in a version 5's incompatible ones.
_TYPES_4: Final = 0x200
_TYPES_5: Final = 0x1
_KNOWN: Final = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80
_NEEDS_REPAIR: Final = 0x10
_MAX_LOG: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Superblock:
    """In bytes and numbers; all checked."""

    version: int
    block_size: int
    root: int
    group_blocks: int
    groups: int
    inode_size: int
    inodes_log: int
    """Of inodes in a block."""
    group_log: int
    """Bits of a block's number that are its place in its group."""
    directory_block: int
    has_types: bool
    log_start: int
    """As its blocks are numbered; 0 is on another disk."""
    log_blocks: int

    def place(self, block: int) -> int:
        """Where a block is, by a number that begins with its group's."""
        group, within = block >> self.group_log, block & (1 << self.group_log) - 1
        if group >= self.groups or within >= self.group_blocks:
            raise _damaged(f"names block {block}, which it has not")
        return (group * self.group_blocks + within) * self.block_size


def read_superblock(volume: Volume) -> Superblock | None:
    """None if there is none."""
    if volume.size < SECTOR:
        return None
    data = volume.read(0, SECTOR)
    if not data.startswith(MAGIC):
        return None
    (
        _, block_size, blocks, log_start, root, group_blocks, groups, log_blocks, version,
        _, inode_size, inodes_per_block, block_log, _, inode_log, inodes_log, group_log,
        in_progress,
    ) = unpacked(_FIXED, data)  # fmt: skip
    directory_log, features2, incompatible = unpacked(_MORE, data)
    if in_progress:
        raise _damaged("was never made to its end")
    number = version & 0xF
    if number not in {4, 5} or not version & _DIRECTORY_2:
        raise DiskUnsupportedError(
            f"the XFS is of version {number}, with a form of directories that is not read here: "
            "import a tar of it"
        )
    incompatible = incompatible if number == 5 else 0
    _check_features(incompatible)
    with_types = incompatible & _TYPES_5 if number == 5 else features2 & _TYPES_4
    possible = (
        9 <= block_log <= 16
        and block_size == 1 << block_log
        and 8 <= inode_log <= 11
        and inode_size == 1 << inode_log
        and inode_log + inodes_log == block_log
        and inodes_per_block == 1 << inodes_log
        and 1 <= group_log <= 31
        and 0 < group_blocks <= 1 << group_log
        and 0 < groups <= blocks <= groups * group_blocks
        and block_log + directory_log <= 16
        and log_blocks * block_size <= _MAX_LOG
    )
    if not possible:
        raise _damaged("has a superblock that contradicts itself")
    check_inside(volume.size, 0, blocks * block_size)
    return Superblock(
        version=number,
        block_size=block_size,
        root=root,
        group_blocks=group_blocks,
        groups=groups,
        inode_size=inode_size,
        inodes_log=inodes_log,
        group_log=group_log,
        directory_block=block_size << directory_log,
        has_types=bool(with_types),
        log_start=log_start,
        log_blocks=log_blocks,
    )


def _check_features(incompatible: int) -> None:
    if incompatible & _NEEDS_REPAIR:
        raise _damaged("says that it needs repair")
    unknown = incompatible & ~_KNOWN & ~_NEEDS_REPAIR
    if unknown:
        raise DiskUnsupportedError(
            f"the XFS has features that are not known here ({unknown:#x}): mount it where you may, "
            "and import a tar of it"
        )


def _damaged(what: str) -> DiskDamagedError:
    return DiskDamagedError(f"the XFS {what}: check it by xfs_repair")
