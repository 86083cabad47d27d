"""Files that an image can be imported from, as users, events and REST name their formats."""

from typing import Final, Literal, get_args

DiskFormat = Literal["ext4", "xfs", "disk", "qcow2", "vmdk"]
"""ext4 is ext2 and ext3, too; a disk is as it is in a machine, usually with partitions."""
DISK_FORMATS: Final[tuple[DiskFormat, ...]] = get_args(DiskFormat)
Format = Literal["docker-archive", "oci-archive", "oci", "tar", "dir", "squashfs"] | DiskFormat
FORMATS: Final[tuple[Format, ...]] = (
    *("docker-archive", "oci-archive", "oci", "tar", "dir", "squashfs"),
    *DISK_FORMATS,
)
MAX_PATH: Final = 4096
"""In bytes: longer ones the kernel does not take."""
