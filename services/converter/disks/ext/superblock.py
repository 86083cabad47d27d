"""The beginning of an ext file system: how large what is, and which features it has."""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from services.converter.disks.errors import (
    DiskDamagedError,
    DiskUncleanError,
    DiskUnsupportedError,
)
from services.converter.disks.volume import Volume, check_inside, sliced, unpacked

AT: Final = 1024
SIZE: Final = 1024
_MAGIC: Final = 0xEF53
_U16: Final = Struct("<H")
_U32: Final = Struct("<I")

_RECOVER: Final = 0x4
_META_BG: Final = 0x10
_64BIT: Final = 0x80
# Names for what cannot be read; all else that changes how files are found is known.
_REFUSED: Final = {
    0x1: "compressed files",
    0x8: "only a journal",
    0x1000: "data in directories",
}
_KNOWN: Final = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000
# Encrypted files are refused one by one; names that ignore case are names.
_PER_FILE: Final = 0x10000 | 0x20000
_SPARSE: Final = 0x1
_SPARSE2: Final = 0x200
_HAS_JOURNAL: Final = 0x4
_CLEAN: Final = 1
_WITH_ERRORS: Final = 2


@dataclass(frozen=True, slots=True)
class Superblock:
    """In bytes and numbers; all checked."""

    block_size: int
    blocks: int
    first_block: int
    blocks_per_group: int
    inodes: int
    inodes_per_group: int
    inode_size: int
    group_size: int
    """Of a group's descriptor."""
    first_meta_group: int | None
    """From this block of descriptors on, they lie spread over the disk."""
    sparse: bool
    two_copies: tuple[int, int] | None
    """With sparse_super2 only these groups have a copy of this."""
    state: int
    recover: bool
    journal: bool

    def check_clean(self) -> None:
        unclean = not self.state & _CLEAN and not self.journal
        if self.recover or unclean or self.state & _WITH_ERRORS:
            raise DiskUncleanError(
                "the ext file system was not unmounted, or has errors: shut its machine down and "
                "copy the disk again, or let e2fsck -fy repair a copy (of a plain file system "
                "image; no root is needed), and import that"
            )

    @property
    def own_block(self) -> int:
        """Where this is."""
        return int(self.block_size == AT)

    def has_copy(self, group: int) -> bool:
        """Whether a group begins with a copy of this."""
        if self.two_copies is not None:
            return group == 0 or group in self.two_copies
        if not self.sparse or group <= 1:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def read_superblock(volume: Volume) -> Superblock | None:
    """None if there is none."""
    if volume.size < AT + SIZE:
        return None
    data = volume.read(AT, SIZE)
    if _u16(data, 56) != _MAGIC:
        return None
    incompatible, read_only = (_u32(data, 96), _u32(data, 100)) if _u32(data, 76) else (0, 0)
    _check_features(incompatible)
    wide = bool(incompatible & _64BIT)
    dynamic = _u32(data, 76) > 0
    block_log = _u32(data, 24)
    if block_log > 6:
        raise _damaged("has impossible blocks")
    blocks = _u32(data, 4) | (_u32(data, 336) << 32 if wide else 0)
    two = (_u32(data, 588), _u32(data, 592)) if _u32(data, 92) & _SPARSE2 and dynamic else None
    found = Superblock(
        block_size=1024 << block_log,
        blocks=blocks,
        first_block=_u32(data, 20),
        blocks_per_group=_u32(data, 32),
        inodes=_u32(data, 0),
        inodes_per_group=_u32(data, 40),
        inode_size=_u16(data, 88) if dynamic else 128,
        group_size=_u16(data, 254) if wide else 32,
        first_meta_group=_u32(data, 260) if incompatible & _META_BG else None,
        sparse=bool(read_only & _SPARSE),
        two_copies=two,
        state=_u16(data, 58),
        recover=bool(incompatible & _RECOVER),
        journal=bool(_u32(data, 92) & _HAS_JOURNAL),
    )
    _check_sizes(found, volume)
    return found


def _check_features(incompatible: int) -> None:
    for bit, what in _REFUSED.items():
        if incompatible & bit:
            raise DiskUnsupportedError(f"the ext file system has {what}, which cannot be read")
    unknown = incompatible & ~(_KNOWN | _PER_FILE)
    if unknown:
        raise DiskUnsupportedError(
            f"the ext file system has features that are not known here ({unknown:#x}): mount it "
            "where you may, and import a tar of it"
        )


def _check_sizes(found: Superblock, volume: Volume) -> None:
    size = found.inode_size
    possible = (
        found.blocks > found.first_block
        and found.first_block <= found.own_block
        and found.blocks_per_group > 0
        and 0 < found.inodes_per_group <= 8 * found.block_size
        and 128 <= size <= found.block_size
        and not size & size - 1
        and 32 <= found.group_size <= 1024
        and not found.group_size & found.group_size - 1
        and found.inodes >= 11
    )
    if not possible:
        raise _damaged("has a superblock that contradicts itself")
    check_inside(volume.size, 0, found.blocks * found.block_size)


def _damaged(what: str) -> DiskDamagedError:
    return DiskDamagedError(f"the ext file system {what}: check it by e2fsck -f")


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _u16(data: bytes, at: int) -> int:
    return int(unpacked(_U16, data, at)[0])


def _u32(data: bytes, at: int) -> int:
    return int(unpacked(_U32, sliced(data, at, 4))[0])
