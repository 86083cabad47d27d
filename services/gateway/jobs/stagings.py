"""What nodes answer about their jobs, and what is made of it where they do not."""

from functools import partial

from services.gateway.batches import Batches, change_every
from services.gateway.durations import node_answered
from services.gateway.jobs.staging_steps import NO_AGENT, answered, given_up
from shared.catalog.interface import Catalog, Change, Step
from shared.catalog.records import Failure, NodeRecord, StagingRecord, StagingState, staging_key
from shared.deadline import Deadline
from shared.events import Event, JobAllocated, JobReleased, NodeFailed, NodeStaged
from shared.models import utcnow


class Stagings:
    """The answers of all nodes, taken many at a time."""

    def __init__(self, catalog: Catalog, timeout: float) -> None:
        self._catalog = catalog
        self._timeout = timeout
        self._records: Batches[StagingRecord] = Batches(catalog.stagings, timeout)
        self._nodes: Batches[NodeRecord] = Batches(catalog.nodes, timeout)

    async def stop(self) -> None:
        await self._records.stop()
        await self._nodes.stop()

    async def on_staged(self, event: NodeStaged) -> None:
        state = StagingState.IN_PLACE if event.in_place else StagingState.STAGED
        step = partial(
            answered,
            allocation=event.causation_id,
            state=state,
            now=utcnow(),
            seconds=event.seconds,
        )
        await self._answered(staging_key(event.job_id, event.node), step)

    async def on_failed(self, event: NodeFailed) -> None:
        failure = Failure(code=event.code, message=event.message)
        await self._failed(staging_key(event.job_id, event.node), event.causation_id, failure)

    async def no_agent(self, event: Event) -> bool:
        """An event to a node found no agent's queue: the job must hear of it, not wait for it."""
        if isinstance(event, JobAllocated):
            message = "no agent is connected; is dray's node agent running there?"
            failure = Failure(code=NO_AGENT, message=message)
            await self._failed(staging_key(event.job_id, event.node), event.id, failure)
            # Where there is none yet, its first heartbeat will have it told.
            await self._nodes.change(event.node, _untold)
            return True
        # A release that finds nobody: the agent's heartbeat tells what it still holds.
        return isinstance(event, JobReleased)

    async def overdue(self, limit: int) -> int:
        """Nodes that took the job and never said how it went; and what was kept long enough."""
        due = await self._catalog.stagings.due(utcnow(), limit)
        silent = {
            each.key: _Once(partial(given_up, seen=each)) for each in due if not each.released
        }
        await change_every(self._catalog.stagings, silent, self._deadline())
        for step in silent.values():
            step.count()
        for each in due:
            if not each.released:
                await self._nodes.change(each.node, _untold)
        old = {each.key: each.version for each in due if each.released}
        removed = await self._catalog.stagings.remove_all(old, self._deadline())
        # What could not be removed now would be found again at once.
        return len(due) if removed == len(old) else 0

    async def _failed(self, key: str, allocation: str | None, failure: Failure) -> None:
        step = partial(
            answered,
            allocation=allocation,
            state=StagingState.FAILED,
            now=utcnow(),
            failure=failure,
        )
        await self._answered(key, step)

    async def _answered(self, key: str, step: Step[StagingRecord]) -> None:
        once = _Once(step)
        await self._records.change(key, once)
        once.count()

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout)


class _Once:
    """A step that knows what became of it: an answer that changes nothing is not counted."""

    def __init__(self, step: Step[StagingRecord]) -> None:
        self._step = step
        self._made: Change[StagingRecord] | None = None

    def __call__(self, found: StagingRecord | None) -> Change[StagingRecord] | None:
        self._made = self._step(found)
        return self._made

    def count(self) -> None:
        """When it has been written."""
        if self._made is not None:
            node_answered(self._made.record)


def _untold(found: NodeRecord | None) -> Change[NodeRecord] | None:
    return None if found is None or found.untold else Change(found.but(untold=True))
