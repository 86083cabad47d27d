"""XFS, versions 4 and 5, as it lies on a disk. Read only, and checksums are not looked at."""
