"""The regions of an image, worked on by a few threads at once; the first error ends them all."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final

from shared.image.errors import WorkCancelledError
from shared.image.recipe import Segment, Tables

Region = Segment | Tables

# More would only fight for the same storage.
_MOST_THREADS: Final = 8
# Less is not worth a thread's while, nor waiting for the disk.
_BATCH_BYTES: Final = 32 << 20


class Stop:
    """Whether to go on: the owner may have given up, or another thread may have failed."""

    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self._failed = False

    def check(self) -> None:
        if self._failed or self._cancelled.is_set():
            raise WorkCancelledError("the work on the image was cancelled")

    def fail(self) -> None:
        self._failed = True


def in_parallel(
    work: Callable[[list[Region]], None], regions: Iterable[Region], stop: Stop
) -> None:
    """Do `work`, which asks `stop`, on batches of all regions. Blocks.

    When this returns or raises, nothing of it runs on.
    """
    batches = list(_batches(regions))
    # One more than cores: somebody always waits for the storage.
    threads = min(len(batches), len(os.sched_getaffinity(0)) + 1, _MOST_THREADS)
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="image") as pool:
        working = [pool.submit(work, batch) for batch in batches]
        done, others = wait(working, return_when=FIRST_EXCEPTION)
        if others:
            stop.fail()
            for future in others:
                future.cancel()
        # Those that were stopped by the one that failed say nothing of their own.
        for future in (future for future in working if future in done):
            future.result()


def _batches(regions: Iterable[Region]) -> Iterator[list[Region]]:
    """Neighbours together: a large image has few regions, one without its dead data has many."""
    batch: list[Region] = []
    size = 0
    for region in regions:
        batch.append(region)
        size += region.length
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
