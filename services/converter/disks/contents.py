"""Rows of a file system as a tar, with what is in the files."""

from collections.abc import Iterator

from services.converter.disks.filesystem import FileSystem, damaged
from services.converter.disks.regions import data_of, laid_out
from services.converter.trees.contents import HOSTS_OWN
from shared.image import kinds
from shared.image.tar.row import Row
from shared.image.tar.writer import Xattrs, entry, padding, sparse_entry


class DiskContents:
    """Of `fs`, which is the same as when it was listed: the caller sees to that."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs

    def entry(self, row: Row) -> Iterator[bytes]:
        if row.kind == kinds.HARD_LINK:
            yield entry(row)
            return
        node = self._fs.node(row.place)
        xattrs = _wanted(node.xattrs())
        if row.kind != kinds.FILE:
            yield entry(row, xattrs)
            return
        layout = laid_out(node)
        if layout.stored != row.stored or node.facts.size != row.size:
            raise damaged(f"inode {row.place} is not what it was")
        if layout.stored == row.size:
            yield entry(row, xattrs)
            rest = padding(row.size)
        else:
            head, over = sparse_entry(row, layout.regions, xattrs)
            yield head
            rest = bytes(over)
        yield from data_of(layout, self._fs.volume)
        yield rest


def _wanted(xattrs: Xattrs) -> Xattrs:
    """A pax record's key ends at its first "="; and of two values the first counts."""
    found: dict[bytes, bytes] = {}
    for name, value in xattrs:
        if b"=" not in name and not name.startswith(HOSTS_OWN):
            found.setdefault(name, value)
    return tuple(found.items())
