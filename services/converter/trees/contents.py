"""The files of one part as a tar: several threads read ahead, and the tar has its one order.

Small files are read whole, some of a directory together; large ones in pieces, so that a parallel
file system serves one of them by several servers. A file that is not what was listed, or becomes
something else while it is read, is told: what is packed is what the stamp says.
"""

import errno
import os
import stat
from collections.abc import Iterator
from functools import partial
from typing import Final

from services.converter.trees.errors import SHOWN, TreeChangedError, TreeUnreadableError
from services.converter.trees.ordered import Task, ordered
from services.converter.trees.places import DIRECTORY, FILE, open_below
from shared.image import kinds
from shared.image.tar.row import Row
from shared.image.tar.writer import END, Regions, Xattrs, entry, padding, sparse_entry

_PIECE: Final = 4 << 20
_SMALL: Final = 1 << 20
_GROUP_ROWS: Final = 64
_HEADER: Final = 512
_READ_AHEAD: Final = 64 << 20
# With more parts than this, a file is read as if it had no holes.
_MAX_REGIONS: Final = 1 << 16
# What this host thinks of a file, and not what the file is: labels, and lists that images have no
# use for.
HOSTS_OWN: Final = (b"system.", b"security.selinux", b"security.SMACK64")
_WITH_XATTRS: Final = frozenset((kinds.FILE, kinds.DIRECTORY))


class Contents:
    """Gives the tar of some rows of the tree below `root`, a descriptor."""

    def __init__(self, root: int, *, threads: int) -> None:
        self._root = root
        self._threads = threads
        self._changed: list[bytes] = []
        self._unreadable: list[bytes] = []

    def tar(self, rows: Iterator[Row]) -> Iterator[bytes]:
        yield from ordered(self._tasks(rows), threads=self._threads, max_bytes=_READ_AHEAD)
        if self._unreadable:
            raise TreeUnreadableError.of(len(self._unreadable), sorted(self._unreadable))
        if self._changed:
            raise TreeChangedError.of(len(self._changed), sorted(self._changed))
        yield END

    def _tasks(self, rows: Iterator[Row]) -> Iterator[Task]:
        group: list[Row] = []
        above = b""
        size = 0
        for row in rows:
            parent = row.path.rpartition(b"/")[0]
            large = row.kind == kinds.FILE and row.size > _SMALL
            full = len(group) >= _GROUP_ROWS or size + row.size > _SMALL
            if group and (large or full or parent != above):
                yield Task(partial(self._group, above, group), size + _HEADER * len(group))
                group, size = [], 0
            if large:
                yield from self._large(row)
                continue
            group.append(row)
            above = parent
            size += row.size
        if group:
            yield Task(partial(self._group, above, group), size + _HEADER * len(group))

    def _group(self, above: bytes, rows: list[Row]) -> bytes:
        """Rows of one directory, whole."""
        if all(row.kind not in _WITH_XATTRS for row in rows):
            return b"".join([entry(row) for row in rows])
        try:
            directory = open_below(self._root, above)
        except OSError as exc:
            for row in rows:
                self._refuse(row, exc)
            return b""
        try:
            return b"".join([self._small(directory, row) for row in rows])
        finally:
            os.close(directory)

    def _small(self, directory: int, row: Row) -> bytes:
        if row.kind not in _WITH_XATTRS:
            return entry(row)
        try:
            fd = self._open(directory, row)
        except OSError as exc:
            self._refuse(row, exc)
            return b""
        try:
            if not _is_as_listed(fd, row):
                self._note_change(row)
                return b""
            head = entry(row, _xattrs(fd))
            if row.kind == kinds.DIRECTORY or not row.size:
                return head
            content = _read(fd, 0, row.size)
            if len(content) != row.size or not _is_as_listed(fd, row):
                self._note_change(row)
                return b""
        except OSError as exc:
            self._refuse(row, exc)
            return b""
        finally:
            os.close(fd)
        return head + content + padding(row.size)

    def _large(self, row: Row) -> Iterator[Task]:
        """A file in pieces; what has begun must be given as long as it was said to be."""
        try:
            fd = open_below(self._root, row.path, FILE)
        except OSError as exc:
            self._refuse(row, exc)
            return
        if not _is_as_listed(fd, row):
            os.close(fd)
            self._note_change(row)
            return
        try:
            regions = _regions(fd, row)
            if regions is None:
                head, rest = entry(row, _xattrs(fd)), -row.size % _HEADER
                regions = [(0, row.size)]
            else:
                head, rest = sparse_entry(row, regions, _xattrs(fd))
        except OSError as exc:
            os.close(fd)
            self._refuse(row, exc)
            return
        yield Task(partial(bytes, head), len(head))
        try:
            for start, length in regions:
                for at in range(start, start + length, _PIECE):
                    size = min(_PIECE, start + length - at)
                    yield Task(partial(self._piece, fd, row, at, size), size)
        except BaseException:
            os.close(fd)  # nobody wants the rest; the threads that read from it are told so
            raise
        yield Task(partial(self._end, fd, row, rest), rest, last=True)

    def _piece(self, fd: int, row: Row, start: int, size: int) -> bytes:
        try:
            content = _read(fd, start, size)
        except OSError as exc:
            raise TreeUnreadableError.of(1, [row.path]) from exc
        if len(content) != size:
            raise TreeChangedError.of(1, [row.path])
        return content

    def _end(self, fd: int, row: Row, rest: int) -> bytes:
        try:
            if not _is_as_listed(fd, row):
                self._note_change(row)
        finally:
            os.close(fd)
        return bytes(rest)

    def _open(self, directory: int, row: Row) -> int:
        if not row.path:
            return os.dup(directory)
        flags = DIRECTORY if row.kind == kinds.DIRECTORY else FILE
        return os.open(row.path.rpartition(b"/")[2], flags, dir_fd=directory)

    def _refuse(self, row: Row, exc: OSError) -> None:
        gone = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE}
        if exc.errno in gone:
            self._note_change(row)
        else:
            self._unreadable.append(row.path)
            self._give_up_at_many(TreeUnreadableError, self._unreadable)

    def _note_change(self, row: Row) -> None:
        self._changed.append(row.path)
        self._give_up_at_many(TreeChangedError, self._changed)

    @staticmethod
    def _give_up_at_many(
        error: type[TreeUnreadableError] | type[TreeChangedError], paths: list[bytes]
    ) -> None:
        """The tree is gone, or something entirely else: reading on would only take time."""
        if len(paths) > _MOST_TROUBLES:
            raise error.of(len(paths), sorted(paths)[:SHOWN])


_MOST_TROUBLES: Final = 10_000


def _is_as_listed(fd: int, row: Row) -> bool:
    now = os.fstat(fd)
    if now.st_ino != row.place or now.st_ctime_ns != row.changed:
        return False
    if row.kind == kinds.DIRECTORY:
        return stat.S_ISDIR(now.st_mode)
    return stat.S_ISREG(now.st_mode) and now.st_size == row.size and now.st_mtime_ns == row.mtime


def _read(fd: int, start: int, size: int) -> bytes:
    """Up to `size` bytes; fewer where the file ends."""
    content = os.pread(fd, size, start)
    if len(content) in {0, size}:
        return content
    parts = [content]
    done = len(content)
    while done < size and (more := os.pread(fd, size - done, start + done)):
        parts.append(more)
        done += len(more)
    return b"".join(parts)


def _regions(fd: int, row: Row) -> Regions | None:
    """Where a file with holes has data; None if it has none, or too many to be worth it."""
    if row.stored >= row.size:
        return None
    regions: Regions = []
    at = 0
    while at < row.size and len(regions) <= _MAX_REGIONS:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole is left
                return regions
            if exc.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
                return None
            raise
        end = min(os.lseek(fd, start, os.SEEK_HOLE), row.size)
        if end <= start:
            return None
        if (start, end) == (0, row.size):
            return None
        regions.append((start, end - start))
        at = end
    return regions if len(regions) <= _MAX_REGIONS else None


def _xattrs(fd: int) -> Xattrs:
    try:
        names = os.listxattr(fd)
    except OSError as exc:
        if exc.errno in {errno.EOPNOTSUPP, errno.ENOTSUP}:
            return ()
        raise
    found = []
    for text in names:
        name = os.fsencode(text)
        # A pax record's key ends at its first "=".
        if name.startswith(HOSTS_OWN) or b"=" in name:
            continue
        try:
            found.append((name, os.getxattr(fd, text)))
        except OSError as exc:
            if exc.errno not in {errno.ENODATA, errno.EACCES, errno.EPERM}:
                raise
    return tuple(found)
