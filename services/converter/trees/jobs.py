"""What is done with the rights of whoever imports: listing a tree, and reading parts of it.

Each job runs in a process of its own. It ends soon when nobody is left to read from its pipe.
"""

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from services.converter.packing.limits import Limits
from services.converter.trees.contents import Contents
from services.converter.trees.parts import PARTS, cut, least_weight
from services.converter.trees.rows import decoded, encoded
from services.converter.trees.squashed import SquashWalk, opened
from services.converter.trees.walk import Noted, Walk
from shared.image.errors import WorkCancelledError
from shared.image.tar.contents import SquashContents
from shared.image.tar.row import Row
from shared.models import Strict

_ROWS_AT_ONCE: Final = 4096


class ListOrder(Strict):
    """What to list, and when it is too much."""

    scope: str
    threads: int
    limits: Limits
    max_rows: int
    least_weight: int
    """Of a part of a small tree."""


class Listing(Strict):
    """What was found; the parts stand behind the rows in the spool, in JSON."""

    began: int
    """In nanoseconds, before the first look."""
    rows: int
    size: int
    sockets: int
    mounts: tuple[str, ...]
    snapshots: tuple[str, ...]
    notes: tuple[str, ...]
    parts_start: int
    parts_length: int


class ReadOrder(Strict):
    """Which of the rows in the spool to read."""

    start: int
    length: int
    threads: int


def list_tree(order: bytes, fds: Sequence[int]) -> bytes:
    """Of a directory; descriptors: the directory, the spool, a pipe that nothing goes into."""
    wanted = ListOrder.model_validate_json(order)
    root, spool, owner = fds
    walk = Walk(
        root,
        threads=wanted.threads,
        max_rows=wanted.max_rows,
        max_file=wanted.limits.max_bytes,
    )
    state = os.fstat(root)
    identity = f"{wanted.scope} tree {state.st_dev} {state.st_ino}\n".encode()
    return listed(wanted, walk, identity, spool=spool, owner=owner)


def list_squashfs(order: bytes, fds: Sequence[int]) -> bytes:
    """Of an image; descriptors: its file, the spool, a pipe that nothing goes into."""
    wanted = ListOrder.model_validate_json(order)
    image, spool, owner = fds
    with opened(image) as squashfs:
        state = os.fstat(image)
        walk = SquashWalk(squashfs, state.st_size, wanted.limits, wanted.max_rows)
        identity = f"{wanted.scope} squashfs {file_identity(state)}\n".encode()
        return listed(wanted, walk, identity, spool=spool, owner=owner)


def read_tree(order: bytes, fds: Sequence[int]) -> bytes:
    """Descriptors: the directory, the spool, the pipe that takes the tar."""
    wanted = ReadOrder.model_validate_json(order)
    root, spool, pipe = fds
    contents = Contents(root, threads=wanted.threads)
    write(contents.tar(decoded(spool, wanted.start, wanted.length)), pipe)
    return b"{}"


def read_squashfs(order: bytes, fds: Sequence[int]) -> bytes:
    """Descriptors: the image's file, the spool, the pipe that takes the tar."""
    wanted = ReadOrder.model_validate_json(order)
    image, spool, pipe = fds
    with opened(image) as squashfs:
        contents = SquashContents(squashfs)
        write(contents.tar(decoded(spool, wanted.start, wanted.length)), pipe)
    return b"{}"


JOBS: Final[Mapping[str, Callable[[bytes, Sequence[int]], bytes]]] = {
    job.__name__: job for job in (list_tree, list_squashfs, read_tree, read_squashfs)
}


def file_identity(state: os.stat_result) -> str:
    """What tells a file from others, and from what it was before."""
    return f"{state.st_dev} {state.st_ino} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


class Lister(Protocol):
    """Walks over a tree."""

    noted: Noted

    def rows(self) -> Iterator[Row]: ...


def listed(
    wanted: ListOrder,
    walk: Lister,
    identity: bytes,
    *,
    spool: int,
    owner: int,
    notes: tuple[str, ...] = (),
) -> bytes:
    """The answer, when all is in the spool."""
    began = time.time_ns()
    length = _spool(map(encoded, _while_wanted(walk.rows(), owner)), spool)
    noted = walk.noted
    least = least_weight(noted.rows, noted.size, wanted.least_weight)
    parts = cut(_while_wanted(decoded(spool, 0, length), owner), least, identity)
    listing = Listing(
        began=began,
        rows=noted.rows,
        size=noted.size,
        sockets=noted.sockets,
        mounts=_shown(noted.mounts),
        snapshots=_shown(noted.snapshots),
        notes=notes,
        parts_start=length,
        parts_length=_spool([PARTS.dump_json(tuple(parts))], spool),
    )
    return listing.model_dump_json().encode()


def _spool(pieces: Iterable[bytes], spool: int) -> int:
    """How many bytes there were."""
    length = 0
    left = iter(pieces)
    while data := b"".join(islice(left, _ROWS_AT_ONCE)):
        _write_all(data, spool)
        length += len(data)
    return length


def _while_wanted(rows: Iterator[Row], owner: int) -> Iterator[Row]:
    watched = select.poll()
    watched.register(owner, 0)  # which tells of errors alone: that nobody has the other end
    for number, row in enumerate(rows):
        if not number % _ROWS_AT_ONCE and watched.poll(0):
            raise WorkCancelledError("listing the tree was cancelled")
        yield row


def write(pieces: Iterator[bytes], pipe: int) -> None:
    try:
        for piece in pieces:
            _write_all(piece, pipe)
    except BrokenPipeError as exc:
        raise WorkCancelledError("reading the tree was cancelled") from exc


def _write_all(data: bytes, fd: int) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _shown(paths: list[bytes]) -> tuple[str, ...]:
    return tuple("/" + path.decode("utf-8", "backslashreplace")[:1000] for path in paths)
