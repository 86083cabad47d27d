"""Work that several threads do ahead, taken in the order in which it was asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """What gives the next bytes, and about how many these are."""

    work: Callable[[], bytes]
    size: int
    last: bool = False
    """To be done when all that was asked for before is done, and so by no other thread."""


def ordered(tasks: Iterable[Task], *, threads: int, max_bytes: int) -> Iterator[bytes]:
    """What the tasks give. At most so many bytes are waited for, and four tasks for each thread."""
    waiting: deque[tuple[Task, Future[bytes] | None]] = deque()
    held = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for task in tasks:
                waiting.append((task, None if task.last else pool.submit(task.work)))
                held += task.size
                while held > max_bytes or len(waiting) > 4 * threads:
                    done, future = waiting.popleft()
                    yield done.work() if future is None else future.result()
                    held -= done.size
            while waiting:
                done, future = waiting.popleft()
                yield done.work() if future is None else future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
