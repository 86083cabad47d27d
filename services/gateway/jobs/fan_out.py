"""Tells the nodes of a job that it begins or ends, in the background and as often as it takes.

Each node's document is written with its event, so a node that was told is never told twice. A job
whose nodes are not known to be told has a `due_at`: a crash half-way through ten thousand nodes is
finished by the sweep of any gateway.
"""

import asyncio
from datetime import timedelta
from functools import partial

from services.gateway.batches import AT_ONCE, change_every
from services.gateway.jobs.staging_steps import Clock, JobOutline, allocated, released
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import JobRecord, staging_key
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.hostlist import expand
from shared.logging import get_logger
from shared.tasks import cancel_all

log = get_logger(__name__)

# As long as a large job's nodes take: another gateway must not begin while this one is at it.
FAN_OUT_SECONDS = 60.0
BATCHES_AT_ONCE = 2
"""While the database writes one, the next is prepared."""


class FanOut:
    """The fan-outs that this gateway has under way, one for each job."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        timeout: float,
        stage_timeout: float,
        keep: timedelta = timedelta(days=30),
    ) -> None:
        self._catalog = catalog
        self._timeout = timeout
        # An agent that is alive says so within its own bound; then its word has to come here.
        self._answer_within = timedelta(seconds=stage_timeout + FAN_OUT_SECONDS)
        self._keep = keep
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, job: JobRecord) -> None:
        """Begin, unless it is under way: that one looks at the job again at its end."""
        if job.told or job.reservation or job.key in self._running:
            return
        task = asyncio.create_task(self._run(job), name=f"fan-out-{job.job_id}")
        self._running[job.key] = task
        task.add_done_callback(lambda _: self._running.pop(job.key, None))

    async def stop(self) -> None:
        """What is not told yet stays due."""
        await cancel_all(*self._running.values())

    @property
    def clock(self) -> Clock:
        return Clock.now(self._answer_within, self._keep)

    async def _run(self, job: JobRecord) -> None:
        try:
            told: JobRecord | None = None
            while told is None or not told.told:
                await self._tell_all(job)
                told = await self._catalog.jobs.change(
                    job.key, partial(_complete, told=job, keep=self._keep), self._deadline()
                )
                if told is None:
                    return
                job = told  # released or announced again meanwhile: once more, with that
        except DrayError as exc:
            log.warning("fan_out_interrupted", job=job.job_id, code=exc.code, error=exc.message)
        except Exception:
            log.exception("fan_out_interrupted", job=job.job_id)

    async def _tell_all(self, job: JobRecord) -> None:
        nodes = await asyncio.to_thread(expand, job.nodes)
        outline = JobOutline.model_validate(dict(job))
        slots = asyncio.Semaphore(BATCHES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(nodes), AT_ONCE):
                await slots.acquire()
                batch = group.create_task(self._tell(outline, nodes[start : start + AT_ONCE]))
                batch.add_done_callback(lambda _: slots.release())

    async def _tell(self, job: JobOutline, nodes: tuple[str, ...]) -> None:
        step = allocated if job.released_at is None else released
        clock = self.clock
        steps = {
            staging_key(job.job_id, node): partial(step, job=job, node=node, clock=clock)
            for node in nodes
        }
        await change_every(self._catalog.stagings, steps, self._deadline())

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout)


def _complete(
    found: JobRecord | None, told: JobRecord, keep: timedelta
) -> Change[JobRecord] | None:
    """All nodes were told of the job as it was `told`; if that is how it still is, it is done."""
    if found is None or found.told:
        return None
    if (found.announced_at, found.released_at) != (told.announced_at, told.released_at):
        return None
    due = None if found.released_at is None else found.released_at + keep
    return Change(found.but(told=True, due_at=due))
