"""One job as it is staged, live: its grid, then what changes in it, and its numbers.

All who follow a job are told the same bytes, twice a second at most; who is behind is told what
changed since. Where much of the grid changed at once, or the job was announced anew, the grid is
told again as a whole.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.gateway.auth.identity import Principal
from services.gateway.jobs.views import TROUBLED, JobViews, may_see_job, no_job, summary_of
from services.gateway.live.grids import JobLetters, change_of, changed_places
from services.gateway.live.job_grids import JobGrids
from services.gateway.live.looking import Looking, heard
from services.gateway.queue import event
from shared.api import JobLive, StagingView
from shared.catalog.records import JobRecord
from shared.deadline import Deadline

PACE_SECONDS: Final = 0.5
NUMBERS_SECONDS: Final = 1.0
FRESH_SECONDS: Final = 1.0
"""Of a grid that is asked for."""
_OF_A_PLACE: Final = 6
"""Bytes, about, that tell one place in a change."""


@dataclass(frozen=True, slots=True, eq=False)
class GridState:
    """A job at one moment."""

    number: int
    job: JobRecord
    grid: JobLetters
    letters: bytes
    difference: bytes
    """What is news to those who know the state with the number before."""
    numbers: bytes
    """The event `job`."""

    @property
    def ended(self) -> bool:
        return _is_over(self.job)


class JobStream:
    """The jobs that somebody follows, or whose grid is asked for."""

    def __init__(self, grids: JobGrids, views: JobViews) -> None:
        self._grids = grids
        self._views = views
        self._looking: Looking[str, GridState] = Looking(self._look)

    async def stop(self) -> None:
        await self._looking.stop()

    async def grid(self, job_id: str, principal: Principal) -> tuple[bytes, str]:
        """As JSON, with its ETag."""
        job = await self._views.get(job_id, principal)
        async with self._grids.using(job) as kept:
            grid = await self._grids.current(kept, FRESH_SECONDS)
            if not may_see_job(principal, kept.job):
                raise no_job(job_id)  # the id is somebody else's now
            return grid.body(grid.letters)

    async def events(
        self, job_id: str, principal: Principal, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        await self._views.get(job_id, principal)
        told: GridState | None = None
        news = asyncio.Event()
        with self._looking.following(job_id, news, free=principal.admin) as seen:
            while await heard(news, deadline):
                now = seen.now()
                if now is None or now is told:
                    continue
                if not may_see_job(principal, now.job):
                    return  # the id is somebody else's now
                if said := _news(told, now):
                    yield said
                told = now
                if now.ended:
                    return

    async def _look(self, job_id: str) -> AsyncGenerator[GridState, None]:
        job = await self._views.any(job_id)
        async with self._grids.using(job) as kept:
            numbers = _Numbers(self._views)
            before: GridState | None = None
            while True:
                grid = await self._grids.current(kept, PACE_SECONDS / 2)
                if _is_over(kept.job):  # then with all that was said before that
                    grid = await self._grids.current(kept, 0.0)
                job, letters = kept.job, grid.letters
                said = await numbers.of(job, grid)
                now = _state(before, job, grid, letters, said)
                if now is not before:
                    yield now
                    before = now
                if now.ended:
                    return
                await asyncio.sleep(PACE_SECONDS)


class _Numbers:
    """The event `job`. The nodes with trouble are read again when there is other trouble."""

    def __init__(self, views: JobViews) -> None:
        self._views = views
        self._said = b""
        self._said_at = float("-inf")
        self._trouble: tuple[datetime, int] | None = None
        self._troubled: tuple[StagingView, ...] = ()

    async def of(self, job: JobRecord, grid: JobLetters) -> bytes:
        """The same object, as long as there is nothing else to say, or not yet."""
        clock = time.monotonic()
        if clock - self._said_at < NUMBERS_SECONDS and not _is_over(job):
            return self._said
        counts = grid.counts()
        trouble = grid.announced_at, grid.trouble
        if trouble != self._trouble:
            some = any(counts[state] for state in TROUBLED)
            self._troubled = await self._views.some(job, TROUBLED) if some else ()
            self._trouble = trouble
        live = JobLive(job=summary_of(job, counts), troubled=self._troubled)
        said = event("job", live.model_dump_json().encode())
        if said != self._said:
            self._said, self._said_at = said, clock
        return self._said


def _is_over(job: JobRecord) -> bool:
    """Released, and all of its nodes know."""
    return job.released_at is not None and job.told


def _state(
    before: GridState | None, job: JobRecord, grid: JobLetters, letters: bytes, said: bytes
) -> GridState:
    """Another state only if there is something to say, or the end."""
    if before is None:
        return GridState(0, job, grid, letters, b"", said)
    difference = _difference(before, grid, letters)
    if not difference and said is before.numbers and _is_over(job) == before.ended:
        return before
    return GridState(before.number + 1, job, grid, letters, difference, said)


def _news(told: GridState | None, now: GridState) -> bytes:
    if told is not None and told.number == now.number - 1:
        said = now.difference
    else:
        said = _difference(told, now.grid, now.letters)
    return said if told is not None and told.numbers is now.numbers else said + now.numbers


def _difference(told: GridState | None, grid: JobLetters, letters: bytes) -> bytes:
    """To who knows that much; the grid as a whole where that is shorter."""
    if told is None or told.grid is not grid:
        return event("grid", grid.body(letters)[0])
    if told.letters == letters:
        return b""
    places = changed_places(told.letters, letters)
    whole = grid.body(letters)[0]
    if len(whole) < _OF_A_PLACE * len(places):
        return event("grid", whole)
    return event("change", change_of(places, letters).model_dump_json().encode())
