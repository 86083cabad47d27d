"""Locks of the pack store: `flock`, so that they die with their owner.

Two kinds. A *lock file* says that somebody makes a pack, or cleans; it is removed with its lock.
And each file of the store is locked itself: shared to mark it as used, exclusively to take its name
away or to give the name to another file. Whoever has marked a file can count on it from then on,
since nobody removes what was used a moment ago.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from shared.errors import DrayError
from shared.files import has_name

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.25
# Files are locked for some system calls only: whoever needs longer is hung, or frozen.
_FILE_SECONDS: Final = 60.0


class StoreBusyError(DrayError):
    """Somebody holds a file of the pack store locked for far longer than that takes."""

    code = "store_busy"
    status = 503
    retryable = True


async def acquire(path: Path) -> BinaryIO:
    """The locked lock file. The store may be slow or hang: the event loop never waits for it."""
    loop = asyncio.get_running_loop()

    def give_back(attempt: "asyncio.Future[BinaryIO | None]") -> None:
        lock = None if attempt.cancelled() or attempt.exception() else attempt.result()
        if lock is not None:
            loop.run_in_executor(None, release, lock, path)

    pause = _FIRST_PAUSE
    while True:
        attempt = asyncio.ensure_future(asyncio.to_thread(try_lock, path, create=True))
        try:
            lock = await asyncio.shield(attempt)
        except asyncio.CancelledError:
            # The thread goes on, and nobody is left who would want what it gets.
            attempt.add_done_callback(give_back)
            raise
        if lock is not None:
            return lock
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def try_lock(path: Path, *, create: bool = False) -> BinaryIO | None:
    """The locked lock file, if nobody else holds it and it still has its name. Blocks."""
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = path.open("ab" if create else "rb+")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if has_name(lock, path):
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def release(lock: BinaryIO, path: Path) -> None:
    """Remove the lock file, and then the lock. Blocks."""
    # Unlinked while it is held: whoever has this very file open sees that it is gone.
    with lock:
        path.unlink(missing_ok=True)


def mark_used(path: Path) -> bool:
    """Whether the file is there; from now on it counts as just used. Blocks."""
    with _named(path, fcntl.LOCK_SH) as file:
        if file is not None:
            os.utime(file.fileno())
        return file is not None


@contextmanager
def changing(path: Path) -> Iterator[os.stat_result | None]:
    """Hold what has this name, so that the body may take the name away; None: nothing has it.

    Blocks, for as long as others mark the file.
    """
    with _named(path, fcntl.LOCK_EX) as file:
        yield None if file is None else os.fstat(file.fileno())


def remove_unless_used(path: Path, last_used_ns: int) -> bool:
    """Remove the file if nobody has used it since then. Blocks, but waits for nobody."""
    try:
        file = path.open("rb+")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        unused = os.fstat(file.fileno()).st_mtime_ns == last_used_ns and has_name(file, path)
        if unused:
            path.unlink()
        return unused


@contextmanager
def _named(path: Path, how: int) -> Iterator[BinaryIO | None]:
    """The file that has this name, locked."""
    end = time.monotonic() + _FILE_SECONDS
    pause = _FIRST_PAUSE
    while (file := _opened(path, how)) is not None:
        with file:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise StoreBusyError(
                        f"{path.name} in the pack store has been locked for {_FILE_SECONDS:g} s; "
                        "the operator must look for a converter that hangs"
                    ) from None
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if has_name(file, path):
                yield file
                return
    yield None


def _opened(path: Path, how: int) -> BinaryIO | None:
    try:
        # NFS, where flock is emulated, locks exclusively only what is open for writing.
        return path.open("rb+" if how == fcntl.LOCK_EX else "rb")
    except FileNotFoundError:
        return None
