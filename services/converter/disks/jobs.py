"""Listing and reading disk images as `trees.jobs` does trees: as the importer, and confined.

Each format has jobs of its own, so that a file is never taken for what its bytes pretend.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from services.converter.disks.confine import confine
from services.converter.disks.contents import DiskContents
from services.converter.disks.opening import Root, root_in
from services.converter.disks.walk import DiskWalk
from services.converter.trees.errors import TreeChangedError, TreeTooLargeError
from services.converter.trees.jobs import ListOrder, ReadOrder, file_identity, listed, write
from services.converter.trees.rows import decoded
from shared.formats import DISK_FORMATS, DiskFormat
from shared.image.tar.row import Row
from shared.image.tar.writer import END, gathered

_MEMORY: Final = 2 << 30
"""Far above honest disks, of which a few names are kept; a hostile one must not take it all."""
Job = Callable[[bytes, Sequence[int]], bytes]


def list_disk(format_: DiskFormat, order: bytes, fds: Sequence[int]) -> bytes:
    """Descriptors: the disk's file, the spool, a pipe that nothing goes into."""
    wanted = ListOrder.model_validate_json(order)
    image, spool, owner = fds
    root = root_in(image, format_)
    root.fs.check_clean()
    state = os.fstat(image)
    walk = DiskWalk(
        root.fs,
        packed=state.st_size,
        changed=state.st_ctime_ns,
        limits=wanted.limits,
        max_rows=wanted.max_rows,
    )
    identity = f"{wanted.scope} {format_} {file_identity(state)}\n".encode()
    return listed(wanted, walk, identity, spool=spool, owner=owner, notes=_notes(root))


def read_disk(format_: DiskFormat, order: bytes, fds: Sequence[int]) -> bytes:
    """Descriptors: the disk's file, the spool, the pipe that takes the tar."""
    wanted = ReadOrder.model_validate_json(order)
    image, spool, pipe = fds
    root = root_in(image, format_)
    contents = DiskContents(root.fs)
    rows = _unchanged(decoded(spool, wanted.start, wanted.length), image)
    write(gathered(piece for row in rows for piece in contents.entry(row)), pipe)
    write(iter((END,)), pipe)
    return b"{}"


def _unchanged(rows: Iterator[Row], image: int) -> Iterator[Row]:
    """A machine that runs writes to its disk all the time."""
    changed = None
    for row in rows:
        changed = row.changed
        yield row
    if changed is not None and os.fstat(image).st_ctime_ns != changed:
        raise TreeChangedError(
            "the disk was changed while it was read: shut its machine down, and import it again"
        )


def _notes(root: Root) -> tuple[str, ...]:
    if not root.partition:
        return ()
    return (f"of the disk only partition {root.partition} is taken ({root.fs.kind})",)


def _confined(job: Callable[[DiskFormat, bytes, Sequence[int]], bytes], format_: DiskFormat) -> Job:
    def run(order: bytes, fds: Sequence[int]) -> bytes:
        confine(_MEMORY)
        try:
            return job(format_, order, fds)
        except MemoryError:
            pass  # told below, where no traceback holds what took the memory
        raise TreeTooLargeError(
            f"reading the disk takes more than {_MEMORY >> 20:,} MiB of memory, which is not "
            "allowed: import a tar of it"
        )

    return run


JOBS: Final[Mapping[str, Job]] = {
    f"{verb}_{format_}": _confined(job, format_)
    for verb, job in (("list", list_disk), ("read", read_disk))
    for format_ in DISK_FORMATS
}
