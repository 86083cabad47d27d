"""Disk images as trees: the root file system of a machine becomes an image, and nothing is mounted.

`opening` says what lies in a file, and finds the root file system: in `qcow2` and `vmdk` images,
in `partitions`, by `ext` and `xfs`. `walk` lists it and `contents` reads it, as `trees` has it.
All of it is Python, which damaged structures cannot overrun; and it runs as the importing user, in
a process that can read one file, write into one pipe, and nothing else (`confine`).
"""
