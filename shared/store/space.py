"""What to tell when the pack store is full, in numbers."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.errors import DrayError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class StoreFullError(DrayError):
    """The pack store's file system has no room for what a pull needs."""

    code = "store_full"
    status = 507
    retryable = True


@contextmanager
def full_is_said(root: Path) -> Iterator[None]:
    """Say of a write that did not fit how much room there is. Blocks then."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in FULL:
            raise
        raise full(root, exc) from exc


def full(root: Path, exc: OSError) -> StoreFullError:
    """The error of a write that did not fit; what it had written is removed by now. Blocks."""
    state = os.statvfs(root)
    free, size = (state.f_frsize * blocks >> 20 for blocks in (state.f_bavail, state.f_blocks))
    return StoreFullError(
        f"the pack store is full ({exc.strerror}): without what was being written {free:,} of "
        f"{size:,} MiB and {state.f_favail:,} files are free; the operator must make room, raise "
        "its quota, or set housekeeping.max_bytes"
    )
