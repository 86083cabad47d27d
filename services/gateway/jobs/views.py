"""Jobs as users see them: bounded, however many nodes a job has and however many jobs there are.

The database counts the nodes; their names are a hostlist, until somebody wants to see them all.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.gateway.auth.identity import Principal, Scope
from shared.api import JobSummary, JobView, StagingView
from shared.catalog.interface import Catalog, Where
from shared.catalog.records import JobRecord, StagingRecord, StagingState, staging_key
from shared.catalog.store import sortable
from shared.catalog.totals import Place, Totals
from shared.errors import NotFoundError
from shared.events import NodeImage, Uid
from shared.hostlist import expand
from shared.models import Instant, JobId, SystemName, Tolerant

NODES_SHOWN: Final = 100
NODES_COUNTED: Final = 50_000
"""A page of jobs ends early where its jobs have more nodes than this."""
HOSTLIST_SHOWN: Final = 1000
"""Characters, in a list of jobs."""
TROUBLED: Final = (StagingState.FAILED, StagingState.LOST)
_STATES: Final = len(StagingState)
_PAGE: Final = 1000
_AT_ONCE: Final = 20


class JobOutline(Tolerant):
    """A job's record without its nodes."""

    job_id: JobId
    system: SystemName
    images: tuple[NodeImage, ...]
    nodes: str = ""
    node_count: int = 0
    announced_by: str
    uid: Uid | None = None
    announced_at: Instant
    reserved_until: Instant | None = None
    released_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs somebody wants to see."""

    system: str | None = None
    uid: int | None = None
    running: bool = False


class JobViews:
    """What the catalog knows of jobs, for those who may know it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def page(
        self, principal: Principal, wanted: JobFilter, beyond: Place | None, limit: int
    ) -> tuple[list[JobSummary], Place | None]:
        """The newest jobs first, and where the next page begins."""
        where: dict[str, str | None] = {}
        if wanted.system is not None:
            where["system"] = wanted.system
        uid = wanted.uid
        if not principal.admin:
            if principal.uid is None or uid not in (None, principal.uid):
                principal.require(Scope.ADMIN)
            uid = principal.uid
        if uid is not None:
            where["uid"] = str(uid)
        if wanted.running:
            where["released_at"] = None
        jobs, following = await self._outlines(where, beyond, limit)
        return await self._summaries(jobs), following

    async def get(self, job_id: str, principal: Principal) -> JobRecord:
        """A job of the principal's own; to others it does not exist."""
        record = await self.any(job_id)
        if not may_see_job(principal, record):
            raise no_job(job_id)
        return record

    async def any(self, job_id: str) -> JobRecord:
        """Whosever job it is: for what decides later who may see it."""
        record = await self._catalog.jobs.get(job_id)
        if record is None:
            raise no_job(job_id)
        return record

    async def show(self, job: JobRecord) -> JobView:
        """The job, and the first of those nodes that are not as they should be."""
        states = (*TROUBLED, StagingState.PENDING)
        return await self._view(job, await self.some(job, states), None)

    async def some(self, job: JobRecord, states: Sequence[StagingState]) -> tuple[StagingView, ...]:
        """The first of its nodes that are in these states, in the order of the states."""
        nodes: list[StagingRecord] = []
        for state in states:
            nodes += await self._some(job, state, NODES_SHOWN - len(nodes))
        return tuple(map(_staging, nodes))

    async def show_all(self, job: JobRecord, after: str | None, limit: int) -> JobView:
        """The job, and its nodes by name, from the first one beyond `after`."""
        names = await asyncio.to_thread(_beyond, job, after)
        page = names[:limit]
        told = await self._told(job, after, page[-1]) if page else {}
        nodes = tuple(told.get(node) or _not_told(node) for node in page)
        return await self._view(job, nodes, page[-1] if len(names) > limit else None)

    async def _outlines(
        self, where: Where, beyond: Place | None, limit: int
    ) -> tuple[list[JobOutline], Place | None]:
        jobs: list[JobOutline] = []
        nodes = 0
        while len(jobs) < limit:
            # A few at a time: the documents of large jobs are large, and others want to go on.
            found = await self._catalog.jobs.newest(
                JobOutline,
                "announced_at",
                where,
                beyond=beyond,
                limit=min(_AT_ONCE, limit - len(jobs)),
            )
            if not found:
                return jobs, None
            for key, job in found:
                nodes += job.node_count
                if jobs and nodes > NODES_COUNTED:
                    return jobs, beyond
                jobs.append(job)
                beyond = Place(sortable(job.announced_at), key)
        return jobs, beyond

    async def _some(self, job: JobRecord, state: StagingState, limit: int) -> list[StagingRecord]:
        if limit <= 0:
            return []
        announced = sortable(job.announced_at)
        where = {"job_id": job.job_id, "state": state.value, "announced_at": announced}
        return await self._catalog.stagings.find(where, limit=limit)

    async def _told(self, job: JobRecord, after: str | None, last: str) -> dict[str, StagingView]:
        """What is known of the nodes up to `last`, by name: the order of the records' keys."""
        where = {"job_id": job.job_id, "announced_at": sortable(job.announced_at)}
        beyond = None if after is None else staging_key(job.job_id, after)
        told: dict[str, StagingView] = {}
        while found := await self._catalog.stagings.find(where, after=beyond, limit=_PAGE):
            told |= {staging.node: _staging(staging) for staging in found if staging.node <= last}
            if found[-1].node >= last:
                break
            beyond = found[-1].key
        return told

    async def _view(
        self, job: JobRecord, nodes: tuple[StagingView, ...], following: str | None
    ) -> JobView:
        [summary] = await self._summaries([JobOutline.model_validate(dict(job))])
        whole = {**dict(summary), "hostlist": job.nodes}
        return JobView(**whole, nodes=nodes, next=following)

    async def pending(self, job: JobRecord) -> int:
        """How many of its nodes have not answered yet."""
        where = {
            "job_id": (job.job_id,),
            "announced_at": (sortable(job.announced_at),),
        }
        asked = Totals(by=("state",), where=where, limit=_STATES)
        counts = {total.by[0]: total.count for total in await self._catalog.stagings.totals(asked)}
        untold = job.node_count - sum(counts.values())
        return untold + counts.get(StagingState.PENDING.value, 0)

    async def _summaries(self, jobs: Sequence[JobOutline]) -> list[JobSummary]:
        if not jobs:
            return []
        when = {job.job_id: sortable(job.announced_at) for job in jobs}
        asked = Totals(
            by=("job_id", "state", "announced_at"),
            where={"job_id": tuple(when), "announced_at": tuple(dict.fromkeys(when.values()))},
            limit=_STATES * len(when) ** 2,
        )
        counts = {total.by: total.count for total in await self._catalog.stagings.totals(asked)}
        return [
            _summary(
                job,
                {
                    state: counts.get((job.job_id, state.value, when[job.job_id]), 0)
                    for state in StagingState
                },
            )
            for job in jobs
        ]


def may_see_job(principal: Principal, job: JobRecord) -> bool:
    return principal.admin or (principal.uid is not None and job.uid == principal.uid)


def no_job(job_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no job {job_id}, or it is not yours: `dray jobs` lists those that the "
        "scheduler has announced"
    )


def summary_of(job: JobRecord, counts: dict[StagingState, int]) -> JobSummary:
    """Where somebody has counted already."""
    return _summary(JobOutline.model_validate(dict(job)), counts)


def _summary(job: JobOutline, told: dict[StagingState, int]) -> JobSummary:
    # A node that has not been told yet has no record of its own.
    untold = max(0, job.node_count - sum(told.values()))
    return JobSummary(
        job_id=job.job_id,
        system=job.system,
        images=tuple(image.image_id for image in job.images),
        hostlist=_cut(job.nodes),
        announced_by=job.announced_by,
        uid=job.uid,
        announced_at=job.announced_at,
        reserved_until=None if job.released_at else job.reserved_until,
        released_at=job.released_at,
        node_count=job.node_count,
        counts={**told, StagingState.PENDING: told[StagingState.PENDING] + untold},
    )


def _beyond(job: JobRecord, after: str | None) -> list[str]:
    if job.reservation:
        return []
    return sorted(node for node in expand(job.nodes) if after is None or node > after)


def _cut(hostlist: str) -> str:
    return hostlist if len(hostlist) <= HOSTLIST_SHOWN else hostlist[: HOSTLIST_SHOWN - 1] + "…"


def _staging(record: StagingRecord) -> StagingView:
    return StagingView(
        node=record.node, state=record.state, failure=record.failure, seconds=record.seconds
    )


def _not_told(node: str) -> StagingView:
    return StagingView(node=node, state=StagingState.PENDING, failure=None, seconds=None)
