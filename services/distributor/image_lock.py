"""One lock per image of a directory: whoever names, renames or describes its files holds it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.image.errors import WorkCancelledError
from shared.models import ImageId
from shared.store.locks import release, try_lock

_PAUSE: Final = 0.1


@contextmanager
def image_lock(directory: Path, image_id: ImageId, cancelled: threading.Event) -> Iterator[None]:
    """Wait for the lock, hold it for the body. Blocks."""
    path = _path(directory, image_id)
    while (lock := try_lock(path, create=True)) is None:
        if cancelled.wait(_PAUSE):
            raise WorkCancelledError(f"waiting for the lock of image {image_id} was cancelled")
    try:
        yield
    finally:
        release(lock, path)


@contextmanager
def image_lock_if_free(directory: Path, image_id: ImageId) -> Iterator[bool]:
    """The same without waiting: False where somebody else holds it. Blocks for system calls."""
    path = _path(directory, image_id)
    lock = try_lock(path, create=True)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            release(lock, path)


def remove_stale_locks(directory: Path) -> None:
    """Lock files whose owners died with them."""
    for path in directory.glob(".*.lock"):
        lock = try_lock(path)
        if lock is not None:
            release(lock, path)


def _path(directory: Path, image_id: ImageId) -> Path:
    return directory / f".{image_id}.lock"
