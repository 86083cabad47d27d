"""Image files on their way out of the site: how many at a time, and read so that nobody waits.

What is given out is the file on the system's file system, as nodes mount it. A gateway that does
not see it says so, and whoever asks goes to the next one.
"""

import asyncio
import os
import stat
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import ClassVar, Final, Self

from services.gateway.auth.identity import Principal
from services.gateway.limits import TooManyRequestsError, counted_as
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.logging import get_logger
from shared.models import ImageId

log = get_logger(__name__)

MOST_AT_ONCE: Final = 64
"""Of all users together: each takes a thread and a few pieces of memory."""
READ_SECONDS: Final = 60.0
_RETRY: Final = 5


class ExportUnavailableError(DrayError):
    """This gateway cannot read the image's file."""

    code = "export_unavailable"
    status = 503
    retryable = True


class TooManyExportsError(TooManyRequestsError):
    """More exports at a time than the settings, or this gateway, allow."""

    code = "too_many_exports"


class Turns:
    """Counts exports while they run: of each user, admins aside, and of all."""

    def __init__(self, per_user: int, in_all: int = MOST_AT_ONCE) -> None:
        self._per_user = per_user
        self._in_all = in_all
        self._running: Counter[str] = Counter()

    @contextmanager
    def taken(self, principal: Principal, remote: str | None) -> Iterator[None]:
        user = "" if principal.admin else counted_as(principal, remote)
        if user and self._running[user] >= self._per_user:
            raise TooManyExportsError(
                f"you have {self._per_user} exports under way at this gateway: wait for one", _RETRY
            )
        if self._running.total() >= self._in_all:
            raise TooManyExportsError("this gateway has many exports under way: wait", _RETRY)
        self._running[user] += 1
        try:
            yield
        finally:
            self._running[user] -= 1
            if not self._running[user]:
                del self._running[user]


class ImageFile:
    """An open image. A file system that hangs holds its own thread alone."""

    _threads: ClassVar = threading.Semaphore(2 * MOST_AT_ONCE)
    """One that hangs outlasts its turn; of those there are no more than so many."""

    def __init__(self, fd: int, thread: ThreadPoolExecutor) -> None:
        self._fd = fd
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def opened(cls, directory: Path, image_id: ImageId, size: int) -> AsyncIterator[Self]:
        if not cls._threads.acquire(blocking=False):
            raise ExportUnavailableError(
                "the file system of the images does not answer this gateway: ask another one, or "
                "again later"
            )
        thread = ThreadPoolExecutor(1, thread_name_prefix="export")
        try:
            loop = asyncio.get_running_loop()
            opening = loop.run_in_executor(thread, _open, directory, image_id, size)
            try:
                async with Deadline.after(READ_SECONDS).bound("opening the image's file"):
                    fd = await asyncio.shield(opening)
            except BaseException:
                opening.add_done_callback(_close_late)
                raise
            try:
                yield cls(fd, thread)
            finally:
                thread.submit(os.close, fd)  # after what is still being read
        finally:
            thread.submit(cls._threads.release)
            thread.shutdown(wait=False)

    def read(self, offset: int, count: int) -> asyncio.Future[bytes]:
        """Begin at once; less than `count` is the end of the file."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, os.pread, self._fd, count, offset)


def _open(directory: Path, image_id: ImageId, size: int) -> int:
    path = directory / f"{image_id}.squashfs"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        advice = "a gateway that gives out images reads the directory as the distributor's user"
        log.warning("image_unreadable", path=str(path), error=exc.strerror, advice=advice)
        raise ExportUnavailableError(
            f"this gateway cannot read the image's file ({exc.strerror}): ask another one, or the "
            "operator to look at its log"
        ) from exc
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size == size:
        return fd
    os.close(fd)
    raise ExportUnavailableError(
        "the image's file is not what it should be, and will be mended: ask again later"
    )


def _close_late(opening: "asyncio.Future[int]") -> None:
    """Nobody waits for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())
