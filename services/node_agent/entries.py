"""When the first process of each job went into an image here, for the job's time line.

Whoever enters an inside reads what it says of the environment: the scheduler's plugin as well as
`dray-enter`, `dray run` and `shifter`. The kernel tells of the first who opens that file, once, and
costs those that come later nothing. Only the job's user may, so nobody says it of others' jobs.
"""

import asyncio
import os
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from shared import linux
from shared.events import MOST_ENTERED, JobEntered
from shared.inside.manifest import ENV
from shared.logging import get_logger
from shared.models import JobId

log = get_logger(__name__)

MOST_WAITING: Final = 1024
_EVENT: Final = struct.Struct("=iIII")
_READ: Final = 64 << 10


class Entries:
    """Those of one node. Where the kernel gives no way to hear of them, there are none."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._counts: Callable[[JobId], bool] = lambda _: False
        self._watched: dict[int, JobId] = {}
        self._at: dict[JobId, float] = {}
        """Not told yet."""
        self._told: set[JobId] = set()

    def open(self, counts: Callable[[JobId], bool]) -> None:
        """Begin; `counts` says of a job whether it is the scheduler's."""
        self._counts = counts
        try:
            self._fd = linux.inotify()
        except OSError as exc:
            log.warning("entries_not_noticed", error=exc.strerror)
            return
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def watch(self, job_id: JobId, inside: Path) -> None:
        """Nobody has been told of this inside yet."""
        if self._fd is None:
            return
        try:
            mask = linux.IN_OPEN | linux.IN_ONESHOT
            self._watched[linux.inotify_watch(self._fd, str(inside / ENV), mask)] = job_id
        except OSError as exc:
            log.warning("entry_not_noticed", job=job_id, error=exc.strerror)

    def ended(self, job_id: JobId) -> None:
        """What is to be told of it still is; the scheduler may use its id again."""
        self._told.discard(job_id)

    def news(self) -> tuple[JobEntered, ...]:
        """What nobody was told of yet."""
        now = time.monotonic()
        return tuple(
            JobEntered(job_id=job_id, seconds_ago=round(now - at, 3))
            for job_id, at in list(self._at.items())[:MOST_ENTERED]
        )

    def told(self, news: Iterable[JobEntered]) -> None:
        """The gateway will hear of these."""
        for each in news:
            if self._at.pop(each.job_id, None) is not None and self._counts(each.job_id):
                self._told.add(each.job_id)

    def _read(self) -> None:
        assert self._fd is not None
        try:
            packet = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        at = 0
        while at < len(packet):
            number, mask, _, length = _EVENT.unpack_from(packet, at)
            at += _EVENT.size + length
            job_id = self._watched.get(number)
            if mask & linux.IN_IGNORED:  # it was the first, or the inside is gone
                self._watched.pop(number, None)
            elif job_id is not None and mask & linux.IN_OPEN:
                self._entered(job_id)

    def _entered(self, job_id: JobId) -> None:
        known = job_id in self._told or job_id in self._at
        if not known and len(self._at) < MOST_WAITING and self._counts(job_id):
            self._at[job_id] = time.monotonic()
