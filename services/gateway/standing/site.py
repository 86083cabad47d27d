"""How the site stands beside its pulls: queues, nodes, jobs, what waits in the outbox.

One look for all who ask, however many they are; the database counts. What cannot be looked at is
unknown, and nothing else suffers: a broker that is away leaves the nodes known, and the other way
round. Nobody waits for a look that hangs.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from services.gateway.stock.storage import LowDirectory
from shared.api import JobsStanding, NodesStanding
from shared.bus.interface import Bus, BusStandings
from shared.catalog.interface import Catalog
from shared.catalog.job_records import StagingState
from shared.catalog.totals import Totals
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.models import utcnow
from shared.tasks import cancel_all

FRESH_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 3.0
STALE_SECONDS: Final = 10.0
"""What was seen longer ago is not known any more."""
UNSETTLED: Final = timedelta(seconds=60)
"""An event that has been in the outbox for longer does not go out by itself."""
_PATIENCE: Final = 1.0
_PINGS: Final = 3
_GROUPS: Final = 10_000

T = TypeVar("T")
LowLook = Callable[[], Awaitable[Sequence[LowDirectory]]]
"""Which image directories have less room than they should."""


@dataclass(frozen=True, slots=True)
class OfSystem:
    """The nodes and jobs of one system."""

    alive: int = 0
    lost: int = 0
    jobs: int = 0
    job_nodes: int = 0
    pending: int = 0
    failed: int = 0
    lost_in_jobs: int = 0
    jobs_with_failures: int = 0


@dataclass(frozen=True, slots=True)
class SiteStanding:
    """What one look has found; None: not known."""

    at: datetime
    bus: BusStandings | None = None
    systems: dict[str, OfSystem] | None = None
    unsettled_seconds: float | None = None
    """How long the oldest event has been in the outbox, beyond what is usual; 0: there is none."""
    catalog_away: bool = False
    catalog_seconds: float | None = None
    """How long the database takes to answer, at the best of the last times."""
    low: tuple[LowDirectory, ...] = ()

    def nodes(self, systems: Sequence[str]) -> NodesStanding | None:
        if self.systems is None:
            return None
        found = [self.systems.get(system, OfSystem()) for system in systems]
        return NodesStanding(
            alive=sum(each.alive for each in found), lost=sum(each.lost for each in found)
        )

    def jobs(self, systems: Sequence[str]) -> JobsStanding | None:
        if self.systems is None:
            return None
        found = [self.systems.get(system, OfSystem()) for system in systems]
        return JobsStanding(
            running=sum(each.jobs for each in found),
            nodes=sum(each.job_nodes for each in found),
            pending=sum(each.pending for each in found),
            failed=sum(each.failed for each in found),
            lost=sum(each.lost_in_jobs for each in found),
        )

    def jobs_with_failures(self, systems: Sequence[str]) -> int:
        known = self.systems or {}
        return sum(known[each].jobs_with_failures for each in systems if each in known)


@dataclass(slots=True)
class _Counts:
    """What is being counted of one system."""

    nodes: dict[str | None, int] = field(default_factory=dict)
    jobs: int = 0
    job_nodes: int = 0
    told: dict[str | None, int] = field(default_factory=dict)
    jobs_with_failures: int = 0

    def done(self, *, all_told: bool) -> OfSystem:
        told = sum(self.told.values())
        # A node that has not been told yet has no record of its own.
        untold = 0 if all_told else max(0, self.job_nodes - told)
        return OfSystem(
            alive=self.nodes.get("0", 0),
            lost=self.nodes.get("1", 0),
            jobs=self.jobs,
            job_nodes=max(self.job_nodes, told),
            pending=self.told.get(StagingState.PENDING.value, 0) + untold,
            failed=self.told.get(StagingState.FAILED.value, 0),
            lost_in_jobs=self.told.get(StagingState.LOST.value, 0),
            jobs_with_failures=self.jobs_with_failures,
        )


class Standings:
    """Looks for all who ask, at most every FRESH_SECONDS, and only while somebody asks."""

    def __init__(self, catalog: Catalog, bus: Bus, systems: Iterable[str], low: LowLook) -> None:
        self._catalog = catalog
        self._bus = bus
        self._sites = tuple(systems)
        self._low = low
        self._seen = SiteStanding(utcnow())
        self._seen_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._letters = 0
        self._pings: deque[float] = deque(maxlen=_PINGS)

    async def stop(self) -> None:
        if self._looking is not None:
            await cancel_all(self._looking)

    async def now(self) -> SiteStanding:
        if time.monotonic() - self._seen_at >= FRESH_SECONDS:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(), name="standings")
            await asyncio.wait({self._looking}, timeout=_PATIENCE)
        if time.monotonic() - self._seen_at > STALE_SECONDS:
            return SiteStanding(utcnow())
        return self._seen

    async def _look(self) -> None:
        began = time.monotonic()
        bus, systems, unsettled, seconds, low = await asyncio.gather(
            _known(self._bus.standings(Deadline.after(LOOK_SECONDS))),
            _known(self._systems()),
            _known(self._unsettled()),
            _known(self._ping()),
            _known(self._low()),
        )
        known, self._letters = self._letters, 0 if bus is None else bus.dead_letters
        if bus is not None:
            # Letters that somebody looks at are not counted by the broker: fewer than before
            # are believed when they are seen again.
            bus = replace(bus, dead_letters=max(known, bus.dead_letters))
        self._seen = SiteStanding(
            utcnow(),
            bus=bus,
            systems=systems,
            unsettled_seconds=unsettled,
            catalog_away=seconds is None,
            catalog_seconds=seconds,
            low=tuple(low or ()),
        )
        self._seen_at = began

    async def _ping(self) -> float:
        began = time.monotonic()
        await self._catalog.ping(Deadline.after(LOOK_SECONDS))
        self._pings.append(time.monotonic() - began)
        return min(self._pings)

    async def _unsettled(self) -> float:
        found = await self._catalog.pending(utcnow() - UNSETTLED, 1)
        if not found:
            return 0.0
        return max(0.0, (utcnow() - found[0].event.time).total_seconds())

    async def _systems(self) -> dict[str, OfSystem]:
        counts: defaultdict[str | None, _Counts] = defaultdict(_Counts)
        nodes = Totals(by=("system", "lost"), where={"system": self._sites}, limit=_GROUPS)
        for total in await self._catalog.nodes.totals(nodes):
            counts[total.by[0]].nodes[total.by[1]] = total.count
        running = {"system": self._sites, "released_at": (None,)}
        jobs = Totals(by=("system",), sums=("node_count",), where=running, limit=_GROUPS)
        for total in await self._catalog.jobs.totals(jobs):
            counted = counts[total.by[0]]
            counted.jobs, [counted.job_nodes] = total.count, total.sums
        here = {"released": ("0",), "system": (*self._sites, None)}
        told = Totals(by=("system", "state"), where=here, limit=_GROUPS)
        for total in await self._catalog.stagings.totals(told):
            counts[total.by[0]].told[total.by[1]] = total.count
        badly = {**here, "state": (StagingState.FAILED.value,)}
        failed = Totals(by=("system", "job_id"), where=badly, limit=_GROUPS)
        for total in await self._catalog.stagings.totals(failed):
            counts[total.by[0]].jobs_with_failures += 1
        # Nodes that an earlier version has told are of no system: until their jobs end, who has
        # not been told yet cannot be counted.
        old = None in counts
        return {system: each.done(all_told=old) for system, each in counts.items() if system}


async def _known(look: Awaitable[T]) -> T | None:
    """None where it cannot be seen, or not in time."""
    try:
        async with Deadline.after(LOOK_SECONDS).bound("looking how the site stands"):
            return await look
    except DrayError:
        return None
