"""The nodes' agents: what they say of themselves, what they missed, and when they are lost.

A node that was not heard for some heartbeats is lost, and so are its parts in jobs. When it is
heard for the first time, again, or with an agent that was started anew, it is told of its jobs.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from services.gateway.batches import Batches
from services.gateway.jobs.fan_out import FanOut
from services.gateway.jobs.first_ranks import FirstRanks
from services.gateway.jobs.outlines import JobOutlines
from services.gateway.jobs.staging_steps import JobOutline, lost, released_again, told_again
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import NodeRecord, StagingRecord, staging_key
from shared.errors import CatalogUnavailableError
from shared.events import NodeHeartbeat
from shared.logging import get_logger
from shared.models import utcnow
from shared.settings.jobs import JobSettings

MOST_JOBS: Final = 1000
"""Of one node that have not ended."""
_AGAIN: Final = timedelta(seconds=60)
_PAGE: Final = 500

log = get_logger(__name__)


class Nodes:
    """All nodes of a site."""

    def __init__(
        self,
        catalog: Catalog,
        fan_out: FanOut,
        rules: JobSettings,
        *,
        heartbeat: float,
        timeout: float,
    ) -> None:
        self._catalog = catalog
        self._fan_out = fan_out
        self._jobs = JobOutlines(catalog)
        self._silence = timedelta(seconds=rules.lost_after * heartbeat)
        self._keep = timedelta(days=rules.keep_nodes_days)
        self._records: Batches[NodeRecord] = Batches(catalog.nodes, timeout)
        self._stagings: Batches[StagingRecord] = Batches(catalog.stagings, timeout)
        self._first_ranks = FirstRanks(catalog, timeout)

    async def stop(self) -> None:
        await self._records.stop()
        await self._stagings.stop()
        await self._first_ranks.stop()

    async def page(
        self, systems: Sequence[str], after: str | None, limit: int, *, lost: bool | None = None
    ) -> list[NodeRecord]:
        where: dict[str, str | Sequence[str]] = {"system": list(systems)}
        if lost is not None:
            where["lost"] = str(int(lost))
        return await self._catalog.nodes.find(where, after=after, limit=limit)

    async def named(
        self, systems: Sequence[str], names: Sequence[str], *, lost: bool | None = None
    ) -> list[NodeRecord]:
        """Those of these nodes that are known, by name."""
        found: list[NodeRecord] = []
        for start in range(0, len(names), _PAGE):
            found += await self._catalog.nodes.get_many(names[start : start + _PAGE])
        wanted = (each for each in found if each.system in systems and lost in (None, each.lost))
        return sorted(wanted, key=lambda each: each.key)

    async def on_heartbeat(self, event: NodeHeartbeat) -> None:
        before: NodeRecord | None = None
        missed = False

        def store(found: NodeRecord | None) -> Change[NodeRecord]:
            nonlocal before, missed
            before = found
            # It stays so in the record until the node was told: somebody else may have to.
            missed = found is None or found.lost or found.untold or _restarted(found, event)
            return Change(self._described(event, found, untold=missed))

        with suppress(CatalogUnavailableError):  # the next one says as much
            await self._records.change(event.node, store)
            if event.entered:
                await self._first_ranks.heard(event)
            if event.jobs:
                await self._release_again(event)
            if missed:
                await self._tell_again(event, restarted=_restarted(before, event))
                await self._records.change(event.node, partial(_told, event=event))

    async def overdue(self, limit: int) -> int:
        """Nodes that are not heard any more, and those that are gone for very long."""
        now = utcnow()
        due = await self._catalog.nodes.due(now, limit)
        await asyncio.gather(*(self._missing(node, now) for node in due))
        return len(due)

    async def _missing(self, node: NodeRecord, now: datetime) -> None:
        if node.seen_at + self._keep <= now:
            await self._catalog.nodes.remove(node.key, node.version)
            return
        silent = False

        def mark(found: NodeRecord | None) -> Change[NodeRecord] | None:
            nonlocal silent
            silent = found is not None and found.version == node.version
            # A crash from here on has it done again, a little later.
            again = {"lost": True, "untold": True, "due_at": now + _AGAIN}
            return Change(found.but(**again)) if found is not None and silent else None

        await self._records.change(node.key, mark)
        if not silent:
            return  # it was heard after all
        for staging in await self._open(node.node):
            await self._stagings.change(staging.key, lost)
        if not node.lost:
            log.warning("node_lost", node=node.node, system=node.system)
        await self._records.change(node.key, partial(_stays_lost, due=node.seen_at + self._keep))

    async def _open(self, node: str) -> list[StagingRecord]:
        where = {"node": node, "released": "0"}
        return await self._catalog.stagings.find(where, limit=MOST_JOBS)

    async def _tell_again(self, event: NodeHeartbeat, *, restarted: bool) -> None:
        stagings = await self._open(event.node)
        jobs = await self._jobs.of(staging.job_id for staging in stagings)
        if outdated := [each.job_id for each in stagings if _is_newer(each, jobs)]:
            self._jobs.forget(outdated)
            jobs |= await self._jobs.of(outdated)
        held = frozenset(event.jobs)
        for staging in stagings:
            job = jobs.get(staging.job_id)
            if job is None or job.released_at is not None:
                continue
            step = partial(
                told_again, job=job, clock=self._fan_out.clock, held=held, restarted=restarted
            )
            await self._stagings.change(staging.key, step)

    async def _release_again(self, event: NodeHeartbeat) -> None:
        """A node still holds jobs that have ended: it was away when it should have heard."""
        for job_id, job in (await self._jobs.of(event.jobs)).items():
            if job.released_at is not None and job.released_at < event.time:
                step = partial(released_again, job=job)
                await self._stagings.change(staging_key(job_id, event.node), step)

    def _described(
        self, event: NodeHeartbeat, found: NodeRecord | None, *, untold: bool
    ) -> NodeRecord:
        # The node's own clock may be wrong, and must not freeze what we know of it.
        now = utcnow()
        return NodeRecord(
            key=event.node,
            version=found.version if found else 0,
            node=event.node,
            system=event.system,
            kernel=event.kernel,
            mounter=event.mounter,
            codecs=event.codecs,
            mounts=event.mounts,
            capacity=event.capacity,
            start_id=event.start_id,
            untold=untold,
            seen_at=now,
            due_at=now + self._silence,
        )


def _restarted(before: NodeRecord | None, event: NodeHeartbeat) -> bool:
    return before is None or before.start_id != event.start_id


def _is_newer(staging: StagingRecord, jobs: Mapping[str, JobOutline]) -> bool:
    """Whether its job was announced since the outline was read."""
    job = jobs.get(staging.job_id)
    return job is None or job.announced_at < staging.announced_at


def _told(found: NodeRecord | None, event: NodeHeartbeat) -> Change[NodeRecord] | None:
    if found is None or not found.untold or found.start_id != event.start_id:
        return None
    return Change(found.but(untold=False))


def _stays_lost(found: NodeRecord | None, due: datetime) -> Change[NodeRecord] | None:
    if found is None:
        return None
    if not found.lost:
        # Heard meanwhile, and its jobs may have been taken for lost since.
        return None if found.untold else Change(found.but(untold=True))
    return Change(found.but(due_at=due))
