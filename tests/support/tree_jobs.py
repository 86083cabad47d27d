"""The jobs that list and read trees, run in the test's own process."""

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from services.converter.disks.jobs import list_disk, read_disk
from services.converter.packing.limits import Limits
from services.converter.trees.jobs import (
    Listing,
    ListOrder,
    ReadOrder,
    list_squashfs,
    list_tree,
    read_squashfs,
    read_tree,
)
from services.converter.trees.parts import PARTS, Part
from services.converter.trees.rows import decoded
from shared.formats import DiskFormat
from shared.image.tar.row import Row

Job = Callable[[bytes, Sequence[int]], bytes]


class Jobs:
    """One tree or image: list it, then read its parts."""

    def __init__(
        self, path: Path, *, least_weight: int = 1 << 30, disk: DiskFormat | None = None
    ) -> None:
        self._list: Job
        self._read: Job
        if disk is not None:
            self._list, self._read = partial(list_disk, disk), partial(read_disk, disk)
        elif path.is_dir():
            self._list, self._read = list_tree, read_tree
        else:
            self._list, self._read = list_squashfs, read_squashfs
        self._least = least_weight
        self._content = os.open(path, os.O_RDONLY)
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        self.listing: Listing | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._content)
        self._spool.close()

    def listed(
        self, limits: Limits | None = None, max_rows: int = 10_000, scope: str = ""
    ) -> tuple[Part, ...]:
        os.ftruncate(self._spool.fileno(), 0)
        self._spool.seek(0)
        order = ListOrder(
            scope=scope,
            threads=3,
            limits=limits or Limits(),
            max_rows=max_rows,
            least_weight=self._least,
        )
        with tempfile.TemporaryFile() as pipe:
            fds = (self._content, self._spool.fileno(), pipe.fileno())
            answer = self._list(order.model_dump_json().encode(), fds)
        self.listing = listing = Listing.model_validate_json(answer)
        text = os.pread(self._spool.fileno(), listing.parts_length, listing.parts_start)
        return PARTS.validate_json(text)

    def rows(self, part: Part) -> list[Row]:
        return list(decoded(self._spool.fileno(), part.start, part.length))

    def read(self, part: Part, meanwhile: Callable[[int], None] = lambda _: None) -> bytes:
        """The part's tar. `meanwhile` is called with the pipe's reading end first."""
        order = ReadOrder(start=part.start, length=part.length, threads=3)
        with tempfile.TemporaryFile() as pipe:
            meanwhile(pipe.fileno())
            self._read(
                order.model_dump_json().encode(),
                (self._content, self._spool.fileno(), pipe.fileno()),
            )
            pipe.seek(0)
            return pipe.read()

    def read_all(self) -> bytes:
        """Tars behind each other."""
        return b"".join(self.read(part) for part in self.listed())


def open_descriptors() -> set[str]:
    """What this process has open, by its targets; sockets and the like have none that last."""
    found = set()
    for place in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(place.readlink()))
    return found
