"""Waiting until the nodes of a job have answered: one look at the catalog for all who wait for it.

What this gateway hears of the job is looked at soon; what others hear, once in a second.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from services.gateway.feed import TooManyFollowersError
from services.gateway.jobs.views import JobViews
from shared.catalog.interface import Catalog, PendingEvent
from shared.catalog.records import JobRecord, Record, StagingRecord
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError
from shared.tasks import cancel_all

WAITING_AT_ONCE: Final = 1000
LOOK_SECONDS: Final = 1.0
_PAUSE: Final = 0.1
"""Between two looks, however much is heard: counting ten thousand nodes is not for nothing."""


@dataclass(eq=False, slots=True)
class _Watched:
    """A job that somebody waits for."""

    waiting: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    looking: asyncio.Task[None] | None = None


class JobWatch:
    """Those who wait for jobs, at one gateway."""

    def __init__(self, catalog: Catalog, views: JobViews) -> None:
        self._catalog = catalog
        self._views = views
        self._watched: dict[str, _Watched] = {}
        self._waiting = 0
        catalog.listen(self._changed)

    async def stop(self) -> None:
        tasks = [each.looking for each in self._watched.values() if each.looking is not None]
        await cancel_all(*tasks)

    async def answered(self, job_id: str, deadline: Deadline) -> None:
        """Return when no node of the job is pending, when it has ended, or at the deadline."""
        with self._watching(job_id) as watched, suppress(TimeoutError):
            async with asyncio.timeout(deadline.remaining()):
                await watched.answered.wait()

    @contextmanager
    def _watching(self, job_id: str) -> Iterator[_Watched]:
        if self._waiting >= WAITING_AT_ONCE:
            raise TooManyFollowersError(
                f"at this gateway {WAITING_AT_ONCE} wait for jobs already; ask now and then "
                "without waiting, or ask another gateway"
            )
        watched = self._watched.setdefault(job_id, _Watched())
        self._waiting += 1
        watched.waiting += 1
        if watched.looking is None:
            looking = self._look(job_id, watched)
            watched.looking = asyncio.create_task(looking, name=f"watch-{job_id}")
        try:
            yield watched
        finally:
            self._waiting -= 1
            watched.waiting -= 1
            if not watched.waiting or watched.answered.is_set():
                watched.looking.cancel()
                if self._watched.get(job_id) is watched:
                    del self._watched[job_id]

    async def _look(self, job_id: str, watched: _Watched) -> None:
        while True:
            watched.heard.clear()
            with suppress(CatalogUnavailableError):  # whoever waits asks again at the end
                if await self._is_answered(job_id):
                    # Whoever comes from now on looks anew.
                    if self._watched.get(job_id) is watched:
                        del self._watched[job_id]
                    watched.answered.set()
                    return
            await asyncio.sleep(_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await watched.heard.wait()

    async def _is_answered(self, job_id: str) -> bool:
        job = await self._catalog.jobs.get(job_id)
        if job is None or job.released_at is not None:
            return True
        return not job.reservation and await self._views.pending(job) == 0

    def _changed(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        if isinstance(record, StagingRecord | JobRecord):
            watched = self._watched.get(record.job_id)
            if watched is not None:
                watched.heard.set()
