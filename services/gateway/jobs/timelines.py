"""The time line of a job: what its record says, and when each of its nodes had its images.

The nodes' part is read page by page, once for all who ask at the same time, and kept: for a moment
while the job runs, and as long as there is room once nothing about it can change.
"""

import asyncio
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from shared.api import JobMark, JobMoment, JobTimeline, StagingQuantiles
from shared.catalog.interface import Catalog
from shared.catalog.records import JobRecord, StagingState, staging_key
from shared.errors import DrayError
from shared.hostlist import expand
from shared.models import Instant, Tolerant, utcnow

MOST_POINTS: Final = 120
MOST_KEPT: Final = 64
KEPT_SECONDS: Final = 2.0
READ_AT_ONCE: Final = 2
MOST_READING: Final = 64
"""Under way or waiting for their turn: they go on though nobody waits for them any more."""
_PAGE: Final = 200
"""Some milliseconds of computing, between two moments at which others may go on."""
_SHARES: Final[tuple[tuple[JobMoment, float], ...]] = (
    ("first_node", 0.0),
    ("half_of_nodes", 0.5),
    ("most_nodes", 0.99),
    ("all_nodes", 1.0),
)


class TooManyTimelinesError(DrayError):
    """More time lines of jobs are asked for than a gateway reads at a time."""

    code = "too_many_timelines"
    status = 503
    retryable = True


class _Answer(Tolerant):
    """What a node's record says of its answer."""

    announced_at: Instant
    state: StagingState
    answered_at: Instant | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Answers:
    """Of all nodes, in bare numbers: of objects, the collector of garbage would look at each."""

    offsets: list[float] = field(default_factory=list)
    """When those had the images that did, in seconds since the announcement."""
    took: list[float] = field(default_factory=list)
    """How long it took them, as they say."""
    count: int = 0

    def add(self, job: JobRecord, answer: _Answer) -> None:
        self.count += answer.state is not StagingState.PENDING
        # Also where that is over: the job has ended, or the node is lost.
        if answer.answered_at is None or answer.state is StagingState.FAILED:
            return
        self.offsets.append(max(0.0, (answer.answered_at - job.announced_at).total_seconds()))
        if answer.seconds is not None:
            self.took.append(answer.seconds)


@dataclass(frozen=True, slots=True)
class NodesPart:
    """What the nodes of one announcement come to."""

    marks: tuple[JobMark, ...] = ()
    arrived: tuple[int, ...] = ()
    step_seconds: float = 0.0
    staging: StagingQuantiles | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """The nodes' part of a job as it is being read, or was."""

    announced_at: datetime
    final: bool
    began: float
    part: asyncio.Task[NodesPart]

    def serves(self, job: JobRecord) -> bool:
        failed = self.part.done() and (self.part.cancelled() or self.part.exception())
        if failed or self.announced_at != job.announced_at:
            return False
        return self.final or (not _is_final(job) and time.monotonic() - self.began < KEPT_SECONDS)


class JobTimelines:
    """Those of a site, read by one gateway."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._readings: OrderedDict[str, _Reading] = OrderedDict()
        self._reading: set[asyncio.Task[NodesPart]] = set()
        self._slots = asyncio.Semaphore(READ_AT_ONCE)

    async def stop(self) -> None:
        parts = list(self._reading)
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)

    async def of(self, job: JobRecord) -> JobTimeline:
        part = NodesPart() if job.reservation else await self._part(job)
        return JobTimeline(
            job_id=job.job_id,
            marks=in_order((*_marks_of(job), *part.marks)),
            arrived=part.arrived,
            step_seconds=part.step_seconds,
            staging=part.staging,
        )

    async def _part(self, job: JobRecord) -> NodesPart:
        reading = self._readings.get(job.key)
        if reading is None or not reading.serves(job):
            if len(self._reading) >= MOST_READING:
                raise TooManyTimelinesError(
                    "many time lines of jobs are being read already: ask again in a moment"
                )
            task = asyncio.create_task(self._read(job), name=f"timeline-{job.job_id}")
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
            reading = _Reading(job.announced_at, _is_final(job), time.monotonic(), task)
            self._readings[job.key] = reading
        self._readings.move_to_end(job.key)
        while len(self._readings) > MOST_KEPT:
            self._readings.popitem(last=False)
        # Others wait for it, too: who is cancelled leaves it to them.
        return await asyncio.shield(reading.part)

    async def _read(self, job: JobRecord) -> NodesPart:
        async with self._slots:
            nodes = await asyncio.to_thread(expand, job.nodes)
            answers = Answers()
            for start in range(0, len(nodes), _PAGE):
                keys = [staging_key(job.job_id, node) for node in nodes[start : start + _PAGE]]
                found = await self._catalog.stagings.outlines_of(_Answer, keys)
                for _, each in found:
                    if each.announced_at == job.announced_at:
                        answers.add(job, each)
            return await asyncio.to_thread(nodes_part, job, answers, utcnow())


def nodes_part(job: JobRecord, answers: Answers, now: datetime) -> NodesPart:
    """From what each node said to what all of them come to."""
    offsets, took = sorted(answers.offsets), sorted(answers.took)
    span = offsets[-1] if offsets else 0.0
    if job.released_at is None and answers.count < job.node_count:
        span = max(span, (now - job.announced_at).total_seconds())
    step = span / (MOST_POINTS - 1)
    counts = [bisect_right(offsets, number * step) for number in range(MOST_POINTS - 1)]
    return NodesPart(
        marks=tuple(_arrivals(job, offsets)),
        arrived=(*counts, len(offsets)) if step else (len(offsets),),
        step_seconds=step,
        staging=_quantiles(took) if took else None,
    )


def in_order(marks: Sequence[JobMark]) -> tuple[JobMark, ...]:
    return tuple(sorted(marks, key=lambda mark: mark.at))


def _is_final(job: JobRecord) -> bool:
    """Whether no node will have anything to say any more."""
    return job.released_at is not None and job.told


def _marks_of(job: JobRecord) -> tuple[JobMark, ...]:
    """What the job itself knows; where two are of one moment, they happened in this order."""
    told: tuple[tuple[JobMoment, datetime | None], ...] = (
        ("reserved", job.announced_at if job.reservation else job.reserved_at),
        ("announced", None if job.reservation else job.announced_at),
        ("first_rank", job.first_rank_at),
        ("released", job.released_at),
    )
    return tuple(JobMark(moment=moment, at=at) for moment, at in told if at is not None)


def _arrivals(job: JobRecord, offsets: Sequence[float]) -> list[JobMark]:
    marks: list[JobMark] = []
    for moment, share in _SHARES:
        wanted = max(1, ceil(share * job.node_count))
        if len(offsets) >= wanted:
            at = job.announced_at + timedelta(seconds=offsets[wanted - 1])
            marks.append(JobMark(moment=moment, at=at))
    return marks


def _quantiles(took: Sequence[float]) -> StagingQuantiles:
    p50, p90, p99 = (took[max(0, ceil(share * len(took)) - 1)] for share in (0.5, 0.9, 0.99))
    return StagingQuantiles(p50=p50, p90=p90, p99=p99, most=took[-1])
