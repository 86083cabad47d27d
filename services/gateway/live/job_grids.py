"""The grids of the jobs that somebody looks at, kept true in this gateway's memory.

A job's nodes are read once, in pages. From then on this process's changes are heard as they are
made, and those of other gateways by one look at the order of changes for all grids. Some seconds
after nobody looks any more a grid is forgotten.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from services.gateway.feed import TooManyFollowersError
from services.gateway.live.grids import JobLetters, StagingOutline
from services.gateway.live.polled import PAGE, Polled, Rounds
from shared.catalog.interface import Catalog, Changed, PendingEvent
from shared.catalog.records import JobRecord, Record, StagingRecord, staging_key
from shared.hostlist import expand

LINGER_SECONDS: Final = 10.0
MOST_NODES: Final = 1_000_000
"""In all grids, about 200 bytes each."""
MOST_GRIDS: Final = 500


@dataclass(eq=False, slots=True)
class Kept:
    """One job, and its grid once that was filled."""

    job: JobRecord
    grid: JobLetters | None = None
    users: int = 0
    filling: "asyncio.Task[None] | None" = None
    leaving: asyncio.TimerHandle | None = None


class JobGrids:
    """Grids by job."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: dict[str, Kept] = {}
        self._jobs = Polled(catalog.jobs, JobRecord, self._wants_job, self._note_job)
        self._stagings = Polled(
            catalog.stagings, StagingOutline, self._wants_staging, self._note_staging
        )
        self._rounds = Rounds(self._look)
        self._entering = asyncio.Lock()
        catalog.listen(self._changed)

    async def stop(self) -> None:
        await self._rounds.stop()
        for kept in list(self._kept.values()):
            self._drop(kept)

    def __len__(self) -> int:
        return len(self._kept)

    @asynccontextmanager
    async def using(self, job: JobRecord) -> AsyncIterator[Kept]:
        """The job's grid is kept for as long as the body runs, and a little longer."""
        async with self._entering:
            if not self._kept:
                # What is read from now on is followed from here.
                await self._jobs.begin()
                await self._stagings.begin()
            kept = self._kept.get(job.job_id)
            if kept is None:
                self._make_room(job)
                kept = self._kept[job.job_id] = Kept(job)
            kept.users += 1
        if kept.leaving is not None:
            kept.leaving.cancel()
            kept.leaving = None
        self._note_job(job.key, job)
        try:
            yield kept
        finally:
            kept.users -= 1
            if not kept.users:
                loop = asyncio.get_running_loop()
                kept.leaving = loop.call_later(LINGER_SECONDS, self._drop, kept)

    async def current(self, kept: Kept, seconds: float) -> JobLetters:
        """The grid as it was so many seconds ago, or later."""
        await self._rounds.within(seconds)
        while kept.grid is None or not (kept.grid.filled and kept.grid.is_of(kept.job)):
            if kept.filling is None or kept.filling.done():
                kept.filling = asyncio.create_task(self._fill(kept), name="job-grid")
            await asyncio.shield(kept.filling)
        return kept.grid

    async def _look(self) -> None:
        # In this order: once a job is known to be over, so are the last of its nodes.
        await self._jobs.look()
        await self._stagings.look()

    async def _fill(self, kept: Kept) -> None:
        job = kept.job
        names = await asyncio.to_thread(expand, job.nodes) if job.nodes else ()
        # Kept before it is filled: what changes meanwhile is noted, and newer than what is read.
        grid = kept.grid = await asyncio.to_thread(JobLetters, job, names)
        async for node, staging in self._told(job.job_id):
            grid.note(node, staging)
        grid.filled = True

    async def _told(self, job_id: str) -> AsyncIterator[tuple[str, StagingOutline]]:
        """The job's nodes that were told of it, or of an earlier job of this id."""
        prefix = staging_key(job_id, "")
        after = prefix
        while page := await self._catalog.stagings.outlines(
            StagingOutline, after=after, limit=PAGE
        ):
            for key, staging in page:
                if not key.startswith(prefix):
                    return
                yield key.removeprefix(prefix), staging
            after = page[-1][0]

    def _make_room(self, job: JobRecord) -> None:
        wanted = job.node_count
        idle = [each for each in self._kept.values() if not each.users]
        while self._is_full(wanted) and idle:
            self._drop(idle.pop(0))
        if self._kept and self._is_full(wanted):
            raise TooManyFollowersError(
                f"this gateway keeps the grids of {len(self._kept)} jobs, and has no room for "
                f"{wanted} nodes more; ask for the job itself, or another gateway"
            )

    def _is_full(self, wanted: int) -> bool:
        nodes = sum(each.job.node_count for each in self._kept.values())
        return len(self._kept) >= MOST_GRIDS or nodes + wanted > MOST_NODES

    def _drop(self, kept: Kept) -> None:
        if kept.filling is not None:
            kept.filling.cancel()
        if kept.leaving is not None:
            kept.leaving.cancel()
        if self._kept.get(kept.job.job_id) is kept:
            del self._kept[kept.job.job_id]

    def _changed(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        if isinstance(record, StagingRecord):
            kept = self._kept.get(record.job_id)
            if kept is not None and kept.grid is not None:
                kept.grid.note(record.node, record)
        elif isinstance(record, JobRecord):
            self._note_job(record.key, record)

    def _wants_job(self, change: Changed) -> bool:
        kept = self._kept.get(change.key)
        return kept is not None and change.version != kept.job.version

    def _note_job(self, key: str, job: JobRecord) -> None:
        kept = self._kept.get(key)
        if kept is not None and _is_newer(job, kept.job):
            kept.job = job

    def _wants_staging(self, change: Changed) -> bool:
        job_id, _, node = change.key.partition("/")
        kept = self._kept.get(job_id)
        return (
            kept is not None and kept.grid is not None and not kept.grid.knows(node, change.version)
        )

    def _note_staging(self, key: str, staging: StagingOutline) -> None:
        job_id, _, node = key.partition("/")
        kept = self._kept.get(job_id)
        if kept is not None and kept.grid is not None:
            kept.grid.note(node, staging)


def _is_newer(job: JobRecord, known: JobRecord) -> bool:
    """A job that was forgotten and announced once more has the same versions again."""
    return (job.announced_at, job.version) > (known.announced_at, known.version)
