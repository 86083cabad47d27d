"""Trees to be compared: a dict from path to `Row`, whether from a model, an image or a mount."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shared.image import kinds
from shared.image.reading.reader import SquashImage


class Row(NamedTuple):
    """All that one path shows; hard links have the first of their names in common."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    detail: object
    xattrs: tuple[tuple[bytes, bytes], ...]
    links: int
    first_name: bytes


Rows = dict[bytes, Row]
# By path: the fields of a row but the last, and what tells one inode from another.
Found = dict[bytes, tuple[tuple[Any, ...], int]]


def image_rows(path: Path) -> Rows:
    """The tree in an image, read by our own reader."""
    found: Found = {}
    with SquashImage(path) as image:
        for item in image.walk():
            inode = item.inode
            kind = "?dflbcps"[inode.kind]
            detail: object = None
            if kind == "l":
                detail = inode.target
            elif kind == "f":
                detail = _digest(image.content(inode))
            elif kind in "bc":
                minor = inode.device & 0xFF | (inode.device >> 12) & 0xFFF00
                detail = ((inode.device >> 8) & 0xFFF, minor)
            xattrs = tuple(sorted(image.xattrs(inode)))
            found[item.path] = (
                (kind, inode.mode, inode.uid, inode.gid, inode.mtime, detail, xattrs, inode.links),
                inode.number,
            )
            assert kinds.DIRECTORY <= inode.kind <= kinds.SOCKET
    return named(found)


def mount_rows(root: Path, *, xattrs: bool = True) -> Rows:
    """The tree below a mount point, as the kernel shows it."""
    found: Found = {}
    pending = [root]
    while pending:
        place = pending.pop()
        path = b"" if place == root else os.fsencode(place.relative_to(root))
        status = place.lstat()
        kind = _kind(status.st_mode)
        detail: object = None
        if kind == "d":
            pending += place.iterdir()
        elif kind == "l":
            detail = os.fsencode(os.readlink(place))  # noqa: PTH115 - Path would tidy the target
        elif kind == "f":
            with place.open("rb") as file:
                detail = _digest(iter(lambda: file.read(1 << 20), b""))
        elif kind in "bc":
            detail = (os.major(status.st_rdev), os.minor(status.st_rdev))
        found[path] = (
            (
                kind,
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                int(status.st_mtime),
                detail,
                _mounted_xattrs(place) if xattrs else (),
                status.st_nlink,
            ),
            status.st_ino,
        )
    return named(found)


def named(found: Found) -> Rows:
    """Name each group of hard links after the first of its paths."""
    first: dict[int, bytes] = {}
    for path in sorted(found):
        first.setdefault(found[path][1], path)
    return {path: Row(*(*fields, first[identity])) for path, (fields, identity) in found.items()}


def _kind(mode: int) -> str:
    return {
        stat.S_IFDIR: "d",
        stat.S_IFREG: "f",
        stat.S_IFLNK: "l",
        stat.S_IFBLK: "b",
        stat.S_IFCHR: "c",
        stat.S_IFIFO: "p",
        stat.S_IFSOCK: "s",
    }[stat.S_IFMT(mode)]


def _mounted_xattrs(place: Path) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:  # an image without any xattr has no table of them
            return ()
        raise
    return tuple(
        sorted((os.fsencode(n), os.getxattr(place, n, follow_symlinks=False)) for n in names)
    )


def _digest(pieces: Iterator[bytes]) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
