"""Notes when all nodes of a job have answered: once for each announcement, whichever gateway it is.

A gateway looks only after answers that it wrote down itself, at most once in a while for each job:
whoever wrote the last one sees that none is missing.
"""

import asyncio
from datetime import datetime
from typing import Final

from services.gateway.durations import JOB_READY
from services.gateway.jobs.views import JobViews
from shared.catalog.interface import Catalog, Change, PendingEvent
from shared.catalog.records import JobRecord, Record, StagingRecord, StagingState
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.logging import get_logger
from shared.models import utcnow
from shared.tasks import cancel_all

LOOK_SECONDS: Final = 1.0
"""Counting ten thousand nodes is not for nothing."""
MOST_JOBS: Final = 10_000

log = get_logger(__name__)


class JobAnswers:
    """Those of the jobs whose nodes answer this gateway."""

    def __init__(self, catalog: Catalog, views: JobViews, timeout: float) -> None:
        self._catalog = catalog
        self._views = views
        self._timeout = timeout
        self._heard: dict[str, datetime] = {}
        """Jobs with news, and when the last answer was written down."""
        self._looking: asyncio.Task[None] | None = None
        catalog.listen(self._changed)

    async def stop(self) -> None:
        """What is left is counted by nobody."""
        if self._looking is not None:
            await cancel_all(self._looking)

    async def _look_at_all(self) -> None:
        while self._heard:
            await asyncio.sleep(LOOK_SECONDS)
            heard, self._heard = self._heard, {}
            for job_id, at in heard.items():
                try:
                    await self._look(job_id, at)
                except DrayError as exc:  # the next answer has it looked at again
                    log.info("answers_not_counted", job=job_id, code=exc.code)
                except Exception:
                    log.exception("answers_not_counted", job=job_id)

    async def _look(self, job_id: str, at: datetime) -> None:
        job = await self._catalog.jobs.get(job_id)
        if job is None or job.answered_at is not None or not job.told or job.reservation:
            if job is not None and not job.told:
                self._heard.setdefault(job_id, at)  # nodes are still being told of it
            return
        if job.released_at is not None or await self._views.pending(job):
            return
        made = False

        def step(found: JobRecord | None) -> Change[JobRecord] | None:
            nonlocal made
            change = _all_answered(found, announced_at=job.announced_at, at=at)
            made = change is not None
            return change

        await self._catalog.jobs.change(job_id, step, Deadline.after(self._timeout))
        if made:
            JOB_READY.observe(max(0.0, (at - job.announced_at).total_seconds()))

    def _changed(self, record: Record, _events: tuple[PendingEvent, ...]) -> None:
        if not isinstance(record, StagingRecord) or record.released:
            return
        if record.state is StagingState.PENDING:
            return
        if record.job_id in self._heard or len(self._heard) < MOST_JOBS:
            self._heard[record.job_id] = utcnow()
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_at_all(), name="job-answers")


def _all_answered(
    found: JobRecord | None, *, announced_at: datetime, at: datetime
) -> Change[JobRecord] | None:
    if found is None or found.answered_at is not None or found.announced_at != announced_at:
        return None
    return Change(found.but(answered_at=at))
