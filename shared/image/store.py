"""The pack store: content-addressed files that all converters share and distributors read.

packs/<k[:2]>/<key>.pack    one layer, converted once
tables/<s[:2]>/<sha256>     the tables of one image
locks/<key>.lock            held while a pack is being made; gone with its holder
"""

import asyncio
import fcntl
import hashlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from shared.deadline import Deadline
from shared.errors import NotFoundError
from shared.image.files import publishing, remove_stale_partials
from shared.image.recipe import PackKey
from shared.models import Sha256

_HEX = re.compile(r"[0-9a-f]{64}")
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25


class PackStore:
    """Paths and publication; whoever wants a pack that is missing makes it under its lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def pack_path(self, key: PackKey) -> Path:
        return self._path("packs", key, ".pack")

    def tables_path(self, sha256: Sha256) -> Path:
        return self._path("tables", sha256, "")

    def has_pack(self, key: PackKey) -> bool:
        return self.pack_path(key).is_file()

    @asynccontextmanager
    async def building(self, key: PackKey, deadline: Deadline) -> AsyncIterator[Path | None]:
        """Where to publish the pack, for the one who may make it now; None if it is there.

        Others, in this process or elsewhere, wait until the holder is done or dead.
        """
        lock_path = self.root / "locks" / f"{key}.lock"
        async with deadline.bound(f"waiting for another converter to make pack {key}"):
            there = await asyncio.to_thread(self.has_pack, key)
            lock = None if there else await _acquire(lock_path)
        if lock is None:
            yield None
            return
        try:
            async with deadline.bound(f"looking for pack {key} in the store"):
                there = await asyncio.to_thread(self.has_pack, key)
            yield None if there else self.pack_path(key)
        finally:
            # Released all the same when we are cancelled: a thread cannot be stopped.
            await asyncio.shield(asyncio.to_thread(_release, lock, lock_path))

    def put_tables(self, blob: bytes) -> Sha256:
        """Publish an image's tables; returns their name. Blocks: run it in a thread."""
        sha256 = hashlib.sha256(blob).hexdigest()
        path = self.tables_path(sha256)
        if not path.is_file():
            with publishing(path) as file:
                file.write(blob)
        return sha256

    def open_pack(self, key: PackKey) -> BinaryIO:
        return _open(self.pack_path(key), "pack", key)

    def open_tables(self, sha256: Sha256) -> BinaryIO:
        return _open(self.tables_path(sha256), "tables", sha256)

    def remove_stale(self) -> int:
        """Remove what dead owners left half-made; returns how many files. Blocks."""
        removed = remove_stale_partials(self.root)
        for path in (self.root / "locks").glob("*.lock"):
            lock = _try_lock(path)
            if lock is not None:
                _release(lock, path)
                removed += 1
        return removed

    def _path(self, kind: str, name: str, suffix: str) -> Path:
        if not _HEX.fullmatch(name):
            raise NotFoundError(f"{name!r} cannot be the name of anything in the pack store")
        return self.root / kind / name[:2] / f"{name}{suffix}"


async def _acquire(path: Path) -> BinaryIO:
    """The locked file. The store may be slow or hang: the event loop never waits for it."""
    loop = asyncio.get_running_loop()

    def give_back(attempt: "asyncio.Future[BinaryIO | None]") -> None:
        lock = None if attempt.cancelled() or attempt.exception() else attempt.result()
        if lock is not None:
            loop.run_in_executor(None, _release, lock, path)

    pause = _FIRST_PAUSE
    while True:
        attempt = asyncio.ensure_future(asyncio.to_thread(_try_lock, path, create=True))
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


def _try_lock(path: Path, *, create: bool = False) -> BinaryIO | None:
    """The locked file, if nobody else holds it and it still has its name."""
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = path.open("ab" if create else "rb")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock.fileno()).st_nlink:
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def _release(lock: BinaryIO, path: Path) -> None:
    # Unlinked while it is held: whoever has this very file open sees that it is gone.
    with lock:
        path.unlink(missing_ok=True)


def _open(path: Path, kind: str, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as exc:
        raise NotFoundError(f"the {kind} {name} are not in the store: pull again") from exc
