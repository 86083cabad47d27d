"""Make a recipe's image in a new file, durable and verified, by several threads at once.

While the storage writes one range, the next is copied, and the one before is read back and hashed.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from shared.image.making.parallel import Region, Stop, in_parallel
from shared.image.making.verify import ImageCheck, RegionCheck
from shared.image.making.weave import Progress, Regions, clear, copy_region, write_superblock
from shared.image.recipe import Recipe
from shared.linux import start_writing, wait_written


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
        behind: Callable[[], None] | None = None
        for region in regions:
            read_back = check.region(region)
            for start, end in copy_region(region, store, fd, progress):
                with suppress(OSError):  # only a hint: what is wrong shows when it is waited for
                    start_writing(fd, start, end)
                if behind is not None:
                    behind()
                behind = partial(_check_stored, fd, start, end, read_back)
        if behind is not None:
            behind()

    clear(recipe, fd)
    in_parallel(make, recipe.regions, stop)
    write_superblock(recipe, fd)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    check.frame()


def _check_stored(fd: int, start: int, end: int, region: RegionCheck) -> None:
    """Read a range as the storage has it, not as memory still holds it from our own writing."""
    try:
        wait_written(fd, start, end)
    except OSError:
        os.fdatasync(fd)  # not every file system knows ranges; a real error comes again here
    os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)
    region.read(start, end)
