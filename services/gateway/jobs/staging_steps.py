"""How the record of one node of one job may change: pure functions of what stands there."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.catalog.interface import Change
from shared.catalog.records import Failure, StagingRecord, StagingState, staging_key
from shared.events import JobAllocated, JobReleased, NodeImage, TraceParent
from shared.models import Instant, JobId, SystemName, Tolerant, utcnow

Changed = Change[StagingRecord] | None

NO_AGENT: Final = "no_agent"
NO_ANSWER: Final = "no_answer"


class JobOutline(Tolerant):
    """A job's record, as far as its nodes have to know it."""

    job_id: JobId
    system: SystemName
    images: tuple[NodeImage, ...]
    announced_at: Instant
    released_at: Instant | None = None
    trace: TraceParent = None


@dataclass(frozen=True, slots=True)
class Clock:
    """By when an agent has to answer, and until when an ended job's nodes are kept."""

    answer: datetime
    keep: datetime

    @classmethod
    def now(cls, answer_within: timedelta, keep: timedelta) -> "Clock":
        now = utcnow()
        return cls(now + answer_within, now + keep)


def allocated(found: StagingRecord | None, job: JobOutline, node: str, clock: Clock) -> Changed:
    """The node is told that the job begins."""
    # Also where a release was faster, or a later announcement.
    if found is not None and found.announced_at >= job.announced_at:
        return None
    event = _allocation(job, node)
    staging = StagingRecord(
        key=staging_key(job.job_id, node),
        version=found.version if found else 0,
        job_id=job.job_id,
        system=job.system,
        node=node,
        announced_at=job.announced_at,
        allocation=event.id,
        state=StagingState.PENDING,
        due_at=clock.answer,
    )
    return Change(staging, (event,))


def released(found: StagingRecord | None, job: JobOutline, node: str, clock: Clock) -> Changed:
    """The node is told that the job has ended."""
    if found is None or found.announced_at < job.announced_at:
        # Never told, and never to be told by a fan-out that is still on its way.
        return Change(_never_told(job, node, found, clock))
    if found.released or found.announced_at > job.announced_at:
        return None
    event = _release(job, node)
    # Why it had failed is worth more than that it is over.
    state = found.state if found.state is StagingState.FAILED else StagingState.RELEASED
    return Change(found.but(released=True, state=state, due_at=clock.keep), (event,))


def released_again(found: StagingRecord | None, job: JobOutline) -> Changed:
    """It was away when it should have heard."""
    if found is None or not found.released:
        return None
    return Change(found, (_release(job, found.node),))


def answered(
    found: StagingRecord | None,
    *,
    allocation: str | None,
    state: StagingState,
    now: datetime,
    failure: Failure | None = None,
    seconds: float | None = None,
) -> Changed:
    """The node has said how it went."""
    # An answer to an earlier announcement of this job id says nothing about this one.
    if found is None or found.allocation != allocation or found.released:
        return None
    # Late good news beats a failure; nothing takes a mounted image back.
    if found.state.mounted or found.state is state:
        return None
    if found.state is StagingState.LOST and failure is not None:
        return None
    ended = found.but(
        state=state,
        failure=failure,
        seconds=seconds,
        answered_at=now,
        due_at=None,
        before_lost=None,
    )
    return Change(ended)


def given_up(found: StagingRecord | None, seen: StagingRecord) -> Changed:
    """It took the job and never said how it went."""
    if found is None or found.version != seen.version:
        return None  # it has answered after all
    message = "the node's agent did not answer; is it alive?"
    failure = Failure(code=NO_ANSWER, message=message)
    return Change(found.but(state=StagingState.FAILED, failure=failure, due_at=None))


def lost(found: StagingRecord | None) -> Changed:
    """The node is not heard any more."""
    if found is None or found.released:
        return None
    if not (found.state.mounted or found.state is StagingState.PENDING):
        return None
    return Change(found.but(state=StagingState.LOST, before_lost=found.state, due_at=None))


def told_again(
    found: StagingRecord | None,
    job: JobOutline,
    clock: Clock,
    *,
    held: Collection[str],
    restarted: bool,
) -> Changed:
    """The node is heard again: of what it missed, it is told; what it still has, it has."""
    if found is None or found.released or found.announced_at != job.announced_at:
        return None
    has_it = found.job_id in held
    match found.state:
        case StagingState.LOST if has_it and found.before_lost and found.before_lost.mounted:
            return Change(found.but(state=found.before_lost, before_lost=None))
        case StagingState.STAGED | StagingState.IN_PLACE if has_it or not restarted:
            return None
        case StagingState.PENDING if not restarted:
            return None
        case StagingState.FAILED if not restarted and not _unheard(found.failure):
            return None
    event = _allocation(job, found.node)
    anew = found.but(
        state=StagingState.PENDING,
        before_lost=None,
        failure=None,
        seconds=None,
        answered_at=None,
        allocation=event.id,
        due_at=clock.answer,
    )
    return Change(anew, (event,))


def _unheard(failure: Failure | None) -> bool:
    return failure is not None and failure.code in {NO_AGENT, NO_ANSWER}


def _allocation(job: JobOutline, node: str) -> JobAllocated:
    return JobAllocated(
        # Agents go by these times, and another gateway's clock may be ahead.
        time=max(utcnow(), job.announced_at),
        correlation_id=job.job_id,
        trace=job.trace,
        node=node,
        job_id=job.job_id,
        system=job.system,
        images=job.images,
    )


def _release(job: JobOutline, node: str) -> JobReleased:
    time = max(utcnow(), job.released_at or job.announced_at)
    return JobReleased(time=time, correlation_id=job.job_id, node=node, job_id=job.job_id)


def _never_told(
    job: JobOutline, node: str, found: StagingRecord | None, clock: Clock
) -> StagingRecord:
    message = "the job was released before this node was told of it"
    return StagingRecord(
        key=staging_key(job.job_id, node),
        version=found.version if found else 0,
        job_id=job.job_id,
        system=job.system,
        node=node,
        announced_at=job.announced_at,
        released=True,
        state=StagingState.FAILED,
        failure=Failure(code="released", message=message),
        due_at=clock.keep,
    )
