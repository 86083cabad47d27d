"""Lists a directory tree in the order of its paths, with several threads that look ahead.

On a parallel file system each look at a file is a question to a server, so many are asked at once.
What waits in memory is bounded: a few hundred files for each level and thread, and the names of the
one directory on each level that is being listed.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from services.converter.packing.limits import MAX_PATH
from services.converter.trees.errors import (
    SHOWN,
    TreeInvalidError,
    TreeTooLargeError,
    TreeUnreadableError,
)
from services.converter.trees.places import DIRECTORY, FILE, open_below
from shared.image import kinds
from shared.image.merging.budget import MAX_DEPTH
from shared.image.tar.links import Links
from shared.image.tar.row import Row

# Snapshots that file systems show as directories: all of the tree again, once for each of them.
SNAPSHOTS: Final = frozenset((b".snapshot", b".snapshots", b".snap", b".zfs", b".lustre"))

_BATCH: Final = 256
# Per level: batches of the directory at hand, and directories below it.
_AHEAD: Final = 16
# A directory with more names than this is not listed before its turn.
_MOST_AHEAD: Final = 4096
_BLOCK: Final = 512


@dataclass(slots=True)
class Noted:
    """What a walk found and left out."""

    rows: int = 0
    size: int = 0
    """Of the files' content, without holes."""
    sockets: int = 0
    mounts: list[bytes] = field(default_factory=list)
    """The first of the directories where other file systems are mounted: they stay empty."""
    snapshots: list[bytes] = field(default_factory=list)
    unreadable: int = 0
    first_unreadable: list[bytes] = field(default_factory=list)

    def refuse(self, path: bytes) -> None:
        self.unreadable += 1
        if len(self.first_unreadable) < SHOWN:
            self.first_unreadable.append(path)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is behind a name; without a state where that may not be known."""

    name: bytes
    state: os.stat_result | None
    target: bytes = b""
    readable: bool = True

    @property
    def is_directory(self) -> bool:
        return self.state is not None and stat.S_ISDIR(self.state.st_mode)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A directory's names, and what is behind the first of them; None: they are too many yet."""

    names: list[bytes] | None
    seen: list[_Seen]


class Walk:
    """One pass over the tree below the directory `root`, a descriptor."""

    def __init__(self, root: int, *, threads: int, max_rows: int, max_file: int) -> None:
        self.noted = Noted()
        self._root = root
        self._device = os.fstat(root).st_dev
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="list")
        self._max_rows = max_rows
        self._max_file = max_file

    def rows(self) -> Iterator[Row]:
        """Each directory before what is in it; TreeUnreadableError when all of it was seen."""
        with self._pool, Links() as links:
            try:
                yield self._counted(_row(b"", kinds.DIRECTORY, os.fstat(self._root), b""))
                levels = [self._directory(b"", self._pool.submit(self._list, b"", ahead=False))]
                while levels:
                    found = next(levels[-1], None)
                    if found is None:
                        levels.pop()
                        continue
                    path, seen, below = found
                    row = self._row(path, seen, links)
                    if row is not None:
                        yield self._counted(row)
                    if below is not None:
                        if len(levels) >= MAX_DEPTH:
                            raise TreeInvalidError(
                                f"the tree has directories more than {MAX_DEPTH} deep in each other"
                            )
                        levels.append(self._directory(path, below))
            finally:
                self._pool.shutdown(wait=True, cancel_futures=True)
        if self.noted.unreadable:
            raise TreeUnreadableError.of(self.noted.unreadable, self.noted.first_unreadable)

    def _row(self, path: bytes, seen: _Seen, links: Links) -> Row | None:
        state = seen.state
        if state is None or not seen.readable:
            self.noted.refuse(path)
        if state is None:
            return None
        kind = kinds.OF_MODE[stat.S_IFMT(state.st_mode)]
        if kind == kinds.SOCKET:
            self.noted.sockets += 1
            return None
        if len(path) > MAX_PATH:
            raise TreeInvalidError(
                f"the tree has a path of {len(path):,} bytes, which nobody could open: "
                f"/{path[:200].decode('utf-8', 'backslashreplace')}…"
            )
        if kind != kinds.DIRECTORY and state.st_nlink > 1:
            first = links.first_name(state.st_dev, state.st_ino, path)
            if first is not None:
                return _row(path, kinds.HARD_LINK, state, first)
        if kind == kinds.FILE and state.st_size > self._max_file:
            raise TreeTooLargeError(
                f"/{path.decode('utf-8', 'backslashreplace')} has {state.st_size:,} bytes, and "
                f"{self._max_file:,} are allowed (converter.max_layer_bytes)"
            )
        return _row(path, kind, state, seen.target)

    def _counted(self, row: Row) -> Row:
        self.noted.rows += 1
        self.noted.size += row.stored
        if self.noted.rows > self._max_rows:
            raise TreeTooLargeError(
                f"the tree has more than {self._max_rows:,} files and directories, which is not "
                "allowed in one image: import parts of it"
            )
        return row

    def _directory(
        self, path: bytes, listing: "Future[_Listed]"
    ) -> Iterator[tuple[bytes, _Seen, "Future[_Listed] | None"]]:
        """What is in one directory, and for each directory in it the listing to come."""
        listed = self._listed(path, listing)
        above = path + b"/" if path else b""
        for batch in self._batches(path, listed):
            inner = deque(
                above + seen.name for seen in batch if self._leads_down(above + seen.name, seen)
            )
            ahead: deque[tuple[bytes, Future[_Listed]]] = deque()
            for seen in batch:
                while inner and len(ahead) < _AHEAD:
                    below = inner.popleft()
                    ahead.append((below, self._pool.submit(self._list, below, ahead=True)))
                here = above + seen.name
                if seen.is_directory and seen.name in SNAPSHOTS:
                    if len(self.noted.snapshots) < SHOWN:
                        self.noted.snapshots.append(here)
                    continue
                is_next = bool(ahead) and ahead[0][0] == here
                yield here, seen, ahead.popleft()[1] if is_next else None

    def _leads_down(self, path: bytes, seen: _Seen) -> bool:
        if seen.state is None or not seen.is_directory or seen.name in SNAPSHOTS:
            return False
        if seen.state.st_dev != self._device:
            if len(self.noted.mounts) < SHOWN:
                self.noted.mounts.append(path)
            return False
        return True

    def _listed(self, path: bytes, listing: "Future[_Listed]") -> _Listed:
        try:
            listed = listing.result()
            if listed.names is None:
                listed = self._list(path, ahead=False)
        except PermissionError:
            self.noted.refuse(path)
        except (FileNotFoundError, NotADirectoryError):
            pass  # it is gone since, or something else; whoever reads it notices
        except OSError as exc:
            if exc.errno != errno.ELOOP:
                raise
        else:
            return listed
        return _Listed([], [])

    def _batches(self, path: bytes, listed: _Listed) -> Iterator[list[_Seen]]:
        yield listed.seen
        names = listed.names or []
        starts = iter(range(_BATCH, len(names), _BATCH))
        ahead: deque[Future[list[_Seen]]] = deque()
        while True:
            while len(ahead) < _AHEAD and (start := next(starts, None)) is not None:
                batch = names[start : start + _BATCH]
                ahead.append(self._pool.submit(self._look_from_root, path, batch))
            if not ahead:
                return
            yield ahead.popleft().result()

    def _list(self, path: bytes, *, ahead: bool) -> _Listed:
        fd = open_below(self._root, path, DIRECTORY)
        try:
            names = []
            with os.scandir(fd) as entries:
                for item in entries:
                    names.append(os.fsencode(item.name))
                    if ahead and len(names) > _MOST_AHEAD:
                        return _Listed(None, [])
            names.sort()
            return _Listed(names, _look(fd, names[:_BATCH]))
        finally:
            os.close(fd)

    def _look_from_root(self, path: bytes, names: list[bytes]) -> list[_Seen]:
        try:
            fd = open_below(self._root, path, DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return _look(fd, names)
        finally:
            os.close(fd)


def _look(directory: int, names: list[bytes]) -> list[_Seen]:
    found = []
    for name in names:
        try:
            state = os.stat(name, dir_fd=directory, follow_symlinks=False)
            target = b""
            if stat.S_ISLNK(state.st_mode):
                target = os.readlink(name, dir_fd=directory)
            found.append(_Seen(name, state, target, _readable(directory, name, state)))
        except PermissionError:  # a directory that may be listed and not entered
            found.append(_Seen(name, None))
        except OSError as exc:
            # Gone since it was listed, or replaced between two looks.
            if exc.errno not in {errno.ENOENT, errno.EINVAL}:
                raise
    return found


def _readable(directory: int, name: bytes, state: os.stat_result) -> bool:
    """Whether its content can be read, as far as its mode tells: else by opening it."""
    if not stat.S_ISREG(state.st_mode) or os.geteuid() == 0:
        return True
    if state.st_mode & 0o444 == 0o444 or (
        state.st_uid == os.geteuid() and state.st_mode & stat.S_IRUSR
    ):
        return True
    try:
        os.close(os.open(name, FILE, dir_fd=directory))
    except PermissionError:
        return False
    return True


def _row(path: bytes, kind: int, state: os.stat_result, target: bytes) -> Row:
    is_file = kind == kinds.FILE
    size = state.st_size if is_file else 0
    return Row(
        path,
        kind,
        stat.S_IMODE(state.st_mode),
        state.st_uid,
        state.st_gid,
        state.st_mtime_ns,
        state.st_ctime_ns,
        size,
        min(size, state.st_blocks * _BLOCK) if is_file else 0,
        state.st_ino,
        state.st_rdev if kind in kinds.DEVICES else 0,
        target,
    )
