"""Make a recipe's image in a new file, durable and verified, by several threads at once.

While the storage writes one range, it is hashed as the new file has it, and the next is copied.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from shared.image.making.parallel import Region, Stop, in_parallel
from shared.image.making.verify import ImageCheck
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
        behind: tuple[int, int] | None = None
        for region in regions:
            copied = check.region(region)
            for start, end in copy_region(region, store, fd, progress):
                with suppress(OSError):  # only a hint: what is wrong shows when it is waited for
                    start_writing(fd, start, end)
                copied.read(start, end)
                if behind is not None:
                    _wait_written(fd, *behind)
                behind = start, end

    clear(recipe, fd)
    in_parallel(make, recipe.regions, stop)
    write_superblock(recipe, fd)
    os.fdatasync(fd)
    check.frame()


def _wait_written(fd: int, start: int, end: int) -> None:
    """So that no more than some ranges are in memory only, however large the image is."""
    # Not every file system knows ranges; a real error comes again when the whole file is synced.
    with suppress(OSError):
        wait_written(fd, start, end)
