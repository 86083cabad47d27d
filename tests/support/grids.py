"""Jobs and their nodes in a catalog, written past the gateways, and what a grid of them must be."""

from datetime import timedelta

from services.gateway.live.grids import LETTERS
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import (
    Failure,
    JobRecord,
    StagingRecord,
    StagingState,
    staging_key,
)
from shared.hostlist import expand
from shared.models import utcnow
from tests.support.catalogs import soon

OF_THE_PAST = timedelta(seconds=5)


async def announced(
    catalog: Catalog, nodes: str, *, job: str = "17", uid: int | None = None
) -> JobRecord:
    """The job, announced anew if it was there."""

    def step(found: JobRecord | None) -> Change[JobRecord]:
        now = utcnow()
        record = JobRecord(
            key=job,
            version=found.version if found else 0,
            job_id=job,
            system="cluster",
            requested=(),
            images=(),
            nodes=nodes,
            node_count=len(expand(nodes)) if nodes else 0,
            announced_by="slurm",
            uid=uid,
            announced_at=max(now, found.announced_at + OF_THE_PAST) if found else now,
            told=True,
        )
        return Change(record)

    record = await catalog.jobs.change(job, step, soon())
    assert record is not None
    return record


async def over(catalog: Catalog, job: str = "17") -> None:
    """The job was released, and all of its nodes know."""

    def step(found: JobRecord | None) -> Change[JobRecord] | None:
        return Change(found.but(released_at=utcnow(), told=True)) if found else None

    await catalog.jobs.change(job, step, soon())


async def staged(
    catalog: Catalog, job: JobRecord, node: str, state: StagingState, why: str = "no_space"
) -> None:
    """What is known of one node now, for this announcement of its job."""

    def step(found: StagingRecord | None) -> Change[StagingRecord]:
        failed = state is StagingState.FAILED
        record = StagingRecord(
            key=staging_key(job.job_id, node),
            version=found.version if found else 0,
            job_id=job.job_id,
            node=node,
            announced_at=job.announced_at,
            state=state,
            failure=Failure(code=why, message="the node says why") if failed else None,
        )
        return Change(record)

    await catalog.stagings.change(staging_key(job.job_id, node), step, soon())


async def letters_of(catalog: Catalog, job_id: str = "17") -> str:
    """What the catalog says, read one by one."""
    job = await catalog.jobs.get(job_id)
    assert job is not None
    letters = ""
    for node in expand(job.nodes) if job.nodes else ():
        found = await catalog.stagings.get(staging_key(job_id, node))
        current = found is not None and found.announced_at == job.announced_at
        state = found.state if found is not None and current else StagingState.PENDING
        letters += LETTERS[state]
    return letters
