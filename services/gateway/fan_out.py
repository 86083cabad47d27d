"""Tells the nodes of a job that it begins or ends, in the background and as often as it takes.

Each node's document is written with its event, so a node that was told is never told twice. A job
whose nodes are not known to be told has a `due_at`: a crash half-way through ten thousand nodes is
finished by the sweep of any gateway.
"""

import asyncio
from datetime import timedelta
from functools import partial

from shared.catalog.interface import Catalog, Change
from shared.catalog.records import Failure, JobRecord, StagingRecord, StagingState, staging_key
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import JobAllocated, JobReleased
from shared.logging import get_logger
from shared.models import utcnow
from shared.tasks import cancel_all

log = get_logger(__name__)

# As long as a large job's nodes take: another gateway must not begin while this one is at it.
FAN_OUT_SECONDS = 60.0
AT_ONCE = 32


class FanOut:
    """The fan-outs that this gateway has under way, one for each job."""

    def __init__(self, catalog: Catalog, *, timeout: float, stage_timeout: float) -> None:
        self._catalog = catalog
        self._timeout = timeout
        # An agent that is alive says so within its own bound; then its word has to come here.
        self._answer_within = timedelta(seconds=stage_timeout + FAN_OUT_SECONDS)
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, job: JobRecord) -> None:
        """Begin, unless it is under way: that one looks at the job again at its end."""
        if job.key in self._running:
            return
        task = asyncio.create_task(self._run(job), name=f"fan-out-{job.job_id}")
        self._running[job.key] = task
        task.add_done_callback(lambda _: self._running.pop(job.key, None))

    async def stop(self) -> None:
        """What is not told yet stays due."""
        await cancel_all(*self._running.values())

    async def _run(self, job: JobRecord) -> None:
        try:
            told: JobRecord | None = None
            while told is None or told.due_at is not None:
                await self._tell_all(job)
                told = await self._catalog.jobs.change(
                    job.key, partial(_complete, told=job), self._deadline()
                )
                if told is None:
                    return
                job = told  # released or announced again meanwhile: once more, with that
        except DrayError as exc:
            log.warning("fan_out_interrupted", job=job.job_id, code=exc.code, error=exc.message)
        except Exception:
            log.exception("fan_out_interrupted", job=job.job_id)

    async def _tell_all(self, job: JobRecord) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(node: str) -> None:
            async with slots:
                await self._tell(job, node)

        for start in range(0, len(job.nodes), 1000):
            async with asyncio.TaskGroup() as group:
                for node in job.nodes[start : start + 1000]:
                    group.create_task(one(node))

    async def _tell(self, job: JobRecord, node: str) -> None:
        def allocate(found: StagingRecord | None) -> Change[StagingRecord] | None:
            # Also where a release was faster, or a later announcement.
            if found is not None and found.announced_at >= job.announced_at:
                return None
            event = JobAllocated(
                correlation_id=job.job_id,
                node=node,
                job_id=job.job_id,
                system=job.system,
                images=job.images,
            )
            staging = StagingRecord(
                key=staging_key(job.job_id, node),
                version=found.version if found else 0,
                job_id=job.job_id,
                node=node,
                announced_at=job.announced_at,
                allocation=event.id,
                state=StagingState.PENDING,
                due_at=utcnow() + self._answer_within,
            )
            return Change(staging, (event,))

        def release(found: StagingRecord | None) -> Change[StagingRecord] | None:
            if found is None or found.announced_at < job.announced_at:
                # Never told, and never to be told by a fan-out that is still on its way.
                return Change(_never_told(job, node, found))
            if found.released or found.announced_at > job.announced_at:
                return None
            event = JobReleased(correlation_id=job.job_id, node=node, job_id=job.job_id)
            return Change(found.but(released=True, due_at=None), (event,))

        step = allocate if job.released_at is None else release
        await self._catalog.stagings.change(staging_key(job.job_id, node), step, self._deadline())

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout)


def _never_told(job: JobRecord, node: str, found: StagingRecord | None) -> StagingRecord:
    message = "the job was released before this node was told of it"
    return StagingRecord(
        key=staging_key(job.job_id, node),
        version=found.version if found else 0,
        job_id=job.job_id,
        node=node,
        announced_at=job.announced_at,
        released=True,
        state=StagingState.FAILED,
        failure=Failure(code="released", message=message),
    )


def _complete(found: JobRecord | None, told: JobRecord) -> Change[JobRecord] | None:
    """All nodes were told of the job as it was `told`; if that is how it still is, it is done."""
    if found is None or found.due_at is None:
        return None
    if (found.announced_at, found.released_at) != (told.announced_at, told.released_at):
        return None
    return Change(found.but(due_at=None))
