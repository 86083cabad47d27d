"""Make a recipe's image in a new file, durable and verified, by several threads at once.

Each piece is hashed in the memory that it is written from: an image is read once and written once.
"""

import mmap
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from shared.image.making.parallel import Region, Stop, in_parallel
from shared.image.making.target import Target
from shared.image.making.verify import ImageCheck, RegionCheck
from shared.image.making.weave import (
    Progress,
    Regions,
    check_long_enough,
    clear,
    clone,
    read_into,
    source_of,
    write_superblock,
)
from shared.image.recipe import Recipe
from shared.metrics import WOVEN_BYTES

_PIECE: Final = 1 << 20


def materialise(
    recipe: Recipe,
    store: Regions,
    file: BinaryIO,
    *,
    on_progress: Callable[[int], None],
    cancelled: threading.Event,
) -> None:
    """Fill `file`; when this returns, the storage has every byte that the recipe promises.

    `on_progress` gets the number of bytes written so far. Blocks: run it in a thread. Naming the
    file is the caller's part (`shared.files.publishing`).
    """
    fd = file.fileno()
    stop = Stop(cancelled)
    progress = Progress(on_progress, stop)
    check = ImageCheck(fd, recipe, Path(file.name).name, stop)

    def make(regions: list[Region]) -> None:
        # Of whole pages, as writing past the cache wants it.
        piece = memoryview(mmap.mmap(-1, _PIECE))
        transfer = _Transfer(store, target, progress, piece)
        for region in regions:
            transfer.run(region, check.region(region))

    with Target.over(fd) as target:
        clear(recipe, fd)
        in_parallel(make, recipe.regions, stop)
    write_superblock(recipe, fd)
    os.fdatasync(fd)
    check.frame()


@dataclass(frozen=True, slots=True)
class _Transfer:
    """One thread's way of bringing regions to their places."""

    store: Regions
    target: Target
    progress: Progress
    buffer: memoryview

    def run(self, region: Region, check: RegionCheck) -> None:
        source, start = source_of(region, self.store)
        with source:
            check_long_enough(source, start + region.length)
            done = shared = clone(source, start, self.target.fd, region.offset, region.length)
            if done:
                check.read(region.offset, region.offset + done)
                self.progress.advance(done)
            while done < region.length:
                size = read_into(self.buffer[: region.length - done], source, start + done)
                piece = self.buffer[:size]
                check.take(piece)
                self.target.write(piece, region.offset + done)
                self.progress.advance(size)
                done += size
        check.end()
        WOVEN_BYTES.labels("shared").inc(shared)
        WOVEN_BYTES.labels("copied").inc(region.length - shared)
