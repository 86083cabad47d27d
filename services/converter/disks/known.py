"""What else may be in a file or a partition: to say so, and what to do, instead of guessing."""

from typing import Final

from services.converter.disks.volume import Volume

_TAR: Final = "mount it where you may, and import a tar of it"
_QEMU: Final = "convert it by qemu-img convert -O qcow2"

# Where which bytes stand, and what that is.
_KNOWN: Final = (
    (0, b"LUKS\xba\xbe", "encrypted (LUKS)", f"unlock and {_TAR}"),
    (3, b"-FVE-FS-", "encrypted (BitLocker)", f"unlock and {_TAR}"),
    (512, b"LABELONE", "a part of LVM", f"activate its volumes (vgchange -ay), {_TAR}"),
    (0x10040, b"_BHRfS_M", "btrfs", _TAR),
    (0x1018, b"\xc6\x85\x73\xf6", "bcachefs", _TAR),
    (4096, b"\xfc\x4e\x2b\xa9", "a part of a RAID", f"assemble it, {_TAR}"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS", _TAR),
    (1024, b"\xe2\xe1\xf5\xe0", "EROFS", _TAR),
    (32768, b"JFS1", "JFS", _TAR),
    (65588, b"ReIsEr", "ReiserFS", _TAR),
    (4086, b"SWAPSPACE2", "swap", ""),
    (3, b"NTFS    ", "NTFS", ""),
    (3, b"EXFAT   ", "exFAT", ""),
    (82, b"FAT32   ", "FAT", ""),
    (54, b"FAT16   ", "FAT", ""),
    (54, b"FAT12   ", "FAT", ""),
    (32769, b"CD001", "ISO 9660", _TAR),
    (64, b"\x7f\x10\xda\xbe", "a VDI image", _QEMU),
    (0, b"vhdxfile", "a VHDX image", _QEMU),
    (0, b"conectix", "a VHD image", _QEMU),
    (0, b"COWD", "a vmdk image of ESX", _QEMU),
    (0, b"QED\0", "a QED image", _QEMU),
    (0, b"hsqs", "squashfs", "take it out and import it by itself"),
)


def known_as(volume: Volume) -> tuple[str, str] | None:
    """What is there, and what can be done; None: nothing that is known."""
    for at, mark, what, todo in _KNOWN:
        if volume.size >= at + len(mark) and volume.read(at, len(mark)) == mark:
            return what, todo
    return None
