"""ext2, ext3 and ext4, as they lie on a disk. Read only, and checksums are not looked at."""
