"""Whether an XFS was unmounted: then its log ends with a record that says so."""

from struct import Struct
from typing import Final

from services.converter.disks.errors import DiskUncleanError, DiskUnsupportedError
from services.converter.disks.volume import SECTOR, Volume, unpacked
from services.converter.disks.xfs.superblock import Superblock

_MAGIC: Final = b"\xfe\xed\xba\xbe"
# Magic, version, where it is in the log and in time, how many operations, and in what portions.
_RECORD: Final = Struct(">4s4xI4xQ16xI276xI")
_PORTION: Final = 32 << 10
"""Of a record, that a sector of its header can describe."""
_VERSION_2: Final = 2
_OPERATION: Final = Struct(">9xB")
_UNMOUNT: Final = 0x20
_PIECE: Final = 1 << 20


def check_clean(volume: Volume, superblock: Superblock) -> None:
    """Looks for the record with the highest number; a log is some MiB, and 2 GiB at most."""
    if not superblock.log_start:
        raise DiskUnsupportedError(
            "the XFS has its log on another disk, so that nobody knows whether it was unmounted: "
            "import a tar of it"
        )
    start = superblock.place(superblock.log_start)
    length = superblock.log_blocks * superblock.block_size
    newest, place = -1, 0
    for begin in range(start, start + length, _PIECE):
        data = volume.read(begin, min(_PIECE, start + length - begin))
        at = data.find(_MAGIC)
        while at >= 0:
            # Sectors of data have another number there: what looks like a header is one.
            if not at % SECTOR:
                number = unpacked(_RECORD, data, at)[2]
                if number > newest:
                    newest, place = number, begin + at
            at = data.find(_MAGIC, at + 4)
    if newest >= 0 and not _is_unmount(volume, start, length, place):
        raise DiskUncleanError(
            "the XFS was not unmounted: shut its machine down and copy the disk again; or mount "
            "and unmount it once, where you may, so that its log is written back"
        )


def _is_unmount(volume: Volume, start: int, length: int, place: int) -> bool:
    _, version, _, operations, portion = unpacked(_RECORD, volume.read(place, SECTOR))
    headers = -(-portion // _PORTION) if version & _VERSION_2 and portion > _PORTION else 1
    # The log is a ring.
    after = start + (place - start + headers * SECTOR) % length
    (flags,) = unpacked(_OPERATION, volume.read(after, SECTOR))
    return operations == 1 and bool(flags & _UNMOUNT)
