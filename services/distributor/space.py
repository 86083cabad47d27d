"""Room for images: looked at before a byte is written, with what others are still to write.

Nothing is reserved on the file system, and quotas are not seen: an image may still not fit, and
then says so in numbers too.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Gauge

from services.distributor.errors import PlacementError
from shared.progress import Part

FREE = Gauge("dray_image_directory_free_bytes", "Room for more images.", ("system",))

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FILES: Final = 8
"""What an image is, with its sidecars, and what is beside them for a while."""
_ADVICE: Final = (
    "remove images that you do not need any more (dray rm) and pull again, or tell the operator, "
    "who "
)


def tell_free(system: str, size: float) -> None:
    """Nothing is told before the first look: 0 would mean that the directory is full."""
    FREE.labels(system).set(size)


class NoRoomError(PlacementError):
    """The system's file system has no room for the image."""

    code = "image_directory_full"
    status = 507


class DiskQuotaError(PlacementError):
    """The quota of the distributor's user, group or project is used up."""

    code = "disk_quota_exceeded"
    status = 507


@dataclass(slots=True, eq=False)
class _Claim:
    device: int
    whole: Part
    copies: int

    @property
    def left(self) -> int:
        return max(0, self.whole.total - self.whole.done) * self.copies


class Space:
    """What this process is about to write, on all its file systems."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: list[_Claim] = []

    @contextmanager
    def claimed(self, directory: Path, whole: Part, copies: int, reserve: int) -> Iterator[None]:
        """Write `whole` in the body; NoRoomError if there is no room for so many copies. Blocks."""
        claim = _Claim(directory.stat().st_dev, whole, copies)
        state = os.statvfs(directory)
        free = state.f_bavail * state.f_frsize
        with self._lock:
            promised = sum(each.left for each in self._claims if each.device == claim.device)
            if claim.left + promised + reserve > free:
                raise NoRoomError(
                    f"{directory} has no room for an image of {_mib(claim.left)}: {_mib(free)} are "
                    f"free, of which {_mib(reserve)} stay in reserve and {_mib(promised)} are for "
                    f"images that are being placed; {_ADVICE}can make room, or change "
                    "systems.NAME.reserve_bytes"
                )
            if state.f_files and state.f_favail < _FILES:
                raise NoRoomError(
                    f"{directory} has room for {state.f_favail} more files only; {_ADVICE}can "
                    "remove files from that file system"
                )
            self._claims.append(claim)
        try:
            yield
        except OSError as exc:
            if exc.errno not in FULL:
                raise
            raise _full(directory, whole, copies, reserve, exc) from exc
        finally:
            with self._lock:
                self._claims.remove(claim)


def _full(directory: Path, whole: Part, copies: int, reserve: int, exc: OSError) -> PlacementError:
    state = os.statvfs(directory)
    free = state.f_bavail * state.f_frsize
    needed = _mib(whole.total * copies)
    if exc.errno == errno.EDQUOT:
        return DiskQuotaError(
            f"{directory} did not take an image of {needed}: {exc.strerror}, for user "
            f"{os.geteuid()} or its group or project, after {_mib(whole.done)} ({_mib(free)} are "
            f"free on the whole file system); {_ADVICE}can raise that quota"
        )
    return NoRoomError(
        f"{directory} became full after {_mib(whole.done)} of an image of {needed}: "
        f"{exc.strerror}; without it {_mib(free)} are free, of which {_mib(reserve)} should "
        f"stay in reserve; {_ADVICE}can make room"
    )


def _mib(size: int) -> str:
    return f"{-(-size // (1 << 20)):,} MiB"
