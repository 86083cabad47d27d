"""What a listing says of one file."""

from typing import NamedTuple


class Row(NamedTuple):
    """One name of the tree, as it was listed; times in nanoseconds."""

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    changed: int
    """When anything about it was changed, for all that the file system tells."""
    size: int
    stored: int
    """What of the size is no hole, as far as that is known without reading."""
    place: int
    """What finds the content, and tells one inode from another."""
    device: int
    """As stat has it."""
    target: bytes
    """Of a symlink, what it says; of a hard link, the path that was listed first."""
