"""Make a recipe's image in a new file, durable and verified, by several threads at once.

What one thread hashes, another copies meanwhile, and the storage writes a third part.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from shared.image.making.parallel import Region, Stop, in_parallel
from shared.image.making.verify import ImageCheck
from shared.image.making.weave import Progress, Regions, clear, copy_region, write_superblock
from shared.image.recipe import Recipe


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
        for region in regions:
            copy_region(region, store, fd, progress)
        start, end = regions[0].offset, regions[-1].offset + regions[-1].length
        _forget(fd, start, end)
        check.regions(regions)

    clear(recipe, fd)
    in_parallel(make, recipe.regions, stop)
    write_superblock(recipe, fd)
    _forget(fd, 0, recipe.size)
    check.frame()


def _forget(fd: int, start: int, end: int) -> None:
    """Let the next read of this range show what the storage has, not what memory still holds."""
    os.fdatasync(fd)
    os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)
