"""Outlines of jobs for heartbeats: all nodes of a job ask for the same, so it is read for all.

An outline may be some seconds old. That a job has ended is then noticed a heartbeat later, and a
node's own record says when it was told of the end.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.gateway.jobs.staging_steps import JobOutline
from shared.catalog.interface import Catalog

KNOWN_SECONDS: Final = 5.0
MOST_KNOWN: Final = 10_000
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class _Reading:
    """Several jobs that are being read, or were."""

    began: float
    found: asyncio.Task[dict[str, JobOutline]]

    @property
    def lasts(self) -> bool:
        failed = self.found.done() and (self.found.cancelled() or self.found.exception())
        return not failed and time.monotonic() - self.began < KNOWN_SECONDS


class JobOutlines:
    """What is known of jobs by their ids."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._readings: dict[str, _Reading] = {}

    async def of(self, ids: Iterable[str]) -> dict[str, JobOutline]:
        """Those that exist."""
        wanted = sorted(set(ids))
        unknown = [each for each in wanted if not self._knows(each)]
        if len(self._readings) + len(unknown) > MOST_KNOWN:
            self._readings.clear()
            unknown = wanted
        if unknown:
            task = asyncio.create_task(self._read(unknown), name="job-outlines")
            reading = _Reading(time.monotonic(), task)
            self._readings.update(dict.fromkeys(unknown, reading))
        found: dict[str, JobOutline] = {}
        for pending in {self._readings[each].found for each in wanted}:
            # Others wait for it, too: who is cancelled leaves it to them.
            found |= await asyncio.shield(pending)
        return {each: found[each] for each in wanted if each in found}

    def forget(self, ids: Iterable[str]) -> None:
        """What is asked of these from now on is read anew."""
        for job_id in ids:
            self._readings.pop(job_id, None)

    def _knows(self, job_id: str) -> bool:
        reading = self._readings.get(job_id)
        return reading is not None and reading.lasts

    async def _read(self, ids: list[str]) -> dict[str, JobOutline]:
        found: dict[str, JobOutline] = {}
        for start in range(0, len(ids), _PAGE):
            found |= await self._catalog.jobs.outlines_of(JobOutline, ids[start : start + _PAGE])
        return found
