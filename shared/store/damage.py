"""What is wrong with a file of the pack store, and where damaged files go.

A damaged file loses its name, so that the next pull makes it anew. It is kept aside for a while:
its bytes tell the operator what kind of fault it was.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from shared.image.errors import PackCorruptError, PackVersionError, WorkCancelledError
from shared.image.packs.pack import footer_of
from shared.image.recipe import PackKey
from shared.logging import get_logger
from shared.metrics import STORE_DAMAGED
from shared.models import Sha256
from shared.store.locks import changing

log = get_logger(__name__)

DAMAGED: Final = "damaged"
MAX_DAMAGED_FILES: Final = 16
MAX_DAMAGED_BYTES: Final = 8 << 30
_PIECE: Final = 4 << 20

T = TypeVar("T")
Check = Generator[int, None, T]
"""Says how many bytes it has read, again and again, so that its caller may pause or give up."""


def finish(check: Check[T], cancelled: threading.Event) -> T:
    """What the check finds. Blocks."""
    while True:
        try:
            next(check)
        except StopIteration as end:
            found: T = end.value
            return found
        if cancelled.is_set():
            raise WorkCancelledError("checking the pack store was cancelled")


def pack_fault(file: BinaryIO, path: Path, key: PackKey) -> Check[str | None]:
    """What is wrong with the bytes of an open pack; None if nothing is that we could tell."""
    try:
        footer = footer_of(file, path)
    except PackVersionError:
        return None
    except PackCorruptError as exc:
        return exc.message
    if footer.key != key:
        return f"it holds the pack {footer.key}"
    for what, start, length, sha256 in (
        ("data", 0, footer.data_length, footer.data_sha256),
        ("index", footer.data_length, footer.index_length, footer.index_sha256),
    ):
        if (yield from digest_of(file, start, length)) != sha256:
            return f"its {what} is not what was written"
    return None


def tables_fault(file: BinaryIO, sha256: Sha256) -> Check[str | None]:
    """What is wrong with the bytes of an open tables blob; None if nothing is."""
    length = os.fstat(file.fileno()).st_size
    if (yield from digest_of(file, 0, length)) != sha256:
        return "its content is not what its name says"
    return None


def digest_of(file: BinaryIO, start: int, length: int) -> Check[Sha256]:
    """The SHA-256 of a range, as far as the file has it."""
    # What the storage has, and not what memory still holds.
    os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_DONTNEED)
    digest = hashlib.sha256()
    end = start + length
    while start < end and (piece := os.pread(file.fileno(), min(_PIECE, end - start), start)):
        digest.update(piece)
        start += len(piece)
        yield len(piece)
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def set_aside(root: Path, path: Path, seen: os.stat_result, fault: str) -> bool:
    """Take the name away from the damaged file that was `seen` under it. Blocks.

    False if it has another file by now: somebody else was faster.
    """
    aside = root / DAMAGED / f"{path.name}.{secrets.token_hex(4)}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    with changing(path) as now:
        if now is None or not os.path.samestat(now, seen):
            return False
        path.replace(aside)
        os.utime(aside)  # from now on: the time when it was found
    STORE_DAMAGED.inc()
    log.warning("store_file_damaged", file=path.name, fault=fault, kept=str(aside))
    prune_damaged(root)
    return True


def prune_damaged(root: Path) -> None:
    """Keep the latest few. Blocks."""
    found: list[tuple[int, int, Path]] = []
    for path in (root / DAMAGED).glob("*"):
        with suppress(FileNotFoundError):
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, path))
    size = 0
    for number, (_, length, path) in enumerate(sorted(found, reverse=True), start=1):
        size += length
        if number > MAX_DAMAGED_FILES or size > MAX_DAMAGED_BYTES:
            path.unlink(missing_ok=True)
