"""What an operator wants to know first, put together for whoever asks.

How the site stands is looked at once for all; what pulls are counted depends on who may see them
(`access`), and is kept for a moment for all who may see the same. Others than admins hear nothing
of nodes, jobs, queues and letters, only of what keeps their own pulls waiting.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Final

from services.gateway.access import may_see
from services.gateway.auth.identity import Principal
from services.gateway.feed import ChangeFeed
from services.gateway.standing.audience import Audience
from services.gateway.standing.event_waits import EventWaits
from services.gateway.standing.pulls import PullStandings, pull_standings
from services.gateway.standing.site import SiteStanding, Standings
from services.gateway.standing.worries import Facts, worries
from shared.api import Overview, QueueStanding, StageStanding
from shared.bus.interface import Bus, QueueDepth
from shared.bus.topology import (
    CONVERTER_PULLS,
    GATEWAY_EVENTS,
    GATEWAY_NODES,
    GATEWAY_REPORTS,
    distributor_queue,
)
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, DeadlineExceededError
from shared.models import utcnow
from shared.states import IN_FLIGHT

FRESH_SECONDS: Final = 0.8
PATIENCE_SECONDS: Final = 2.0
"""So long an operator waits for a catalog that does not answer."""
MOST_AUDIENCES: Final = 1000
_GATEWAYS: Final = {GATEWAY_EVENTS.name, GATEWAY_NODES.name, GATEWAY_REPORTS.name}


@dataclass(frozen=True, slots=True)
class View:
    """An overview, and the facts that it was made of."""

    overview: Overview
    facts: Facts


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was made for all who may see the same, and when."""

    view: View
    at: float


class Overviews:
    """The overviews of one gateway."""

    def __init__(self, feed: ChangeFeed, standings: Standings, waits: EventWaits, bus: Bus) -> None:
        self._feed = feed
        self._standings = standings
        self._waits = waits
        self._bus = bus
        self._version = version("dray")
        self._kept: dict[tuple[Audience, tuple[str, ...]], _Kept] = {}

    async def current(self, principal: Principal, systems: Sequence[str]) -> Overview:
        """At most a second old, and the same object for all who may see the same meanwhile.

        CatalogUnavailableError for others than admins while nobody can tell what they may see.
        """
        return (await self.view(Audience.of(principal), systems)).overview

    async def view(self, audience: Audience, systems: Sequence[str]) -> View:
        key = (audience, tuple(systems))
        if (kept := self._fresh(key)) is not None:
            return kept
        site = await self._standings.now()
        await self._feed_fresh_for(audience)
        if (kept := self._fresh(key)) is not None:
            return kept  # somebody else has asked meanwhile
        began = time.monotonic()
        view = await self._made(audience, systems, site)
        self._kept.pop(key, None)
        self._kept[key] = _Kept(view, began)
        while len(self._kept) > MOST_AUDIENCES:
            del self._kept[next(iter(self._kept))]
        return view

    async def _feed_fresh_for(self, audience: Audience) -> None:
        """Who sees everything may see what was known last, and that the catalog is away."""
        if not audience.admin:
            await self._feed.fresh()
            return
        with suppress(CatalogUnavailableError, DeadlineExceededError):
            async with Deadline.after(PATIENCE_SECONDS).bound("looking what has changed"):
                await self._feed.fresh()

    def _fresh(self, key: tuple[Audience, tuple[str, ...]]) -> View | None:
        kept = self._kept.get(key)
        if kept is None or time.monotonic() - kept.at >= FRESH_SECONDS:
            return None
        return kept.view

    async def _made(self, audience: Audience, systems: Sequence[str], site: SiteStanding) -> View:
        now = utcnow()
        entries = self._feed.directory.queued(systems)
        pulls = await pull_standings(entries, partial(may_see, audience.principal), now)
        facts = self._facts(audience, systems, site, pulls)
        overview = Overview(
            at=now,
            version=self._version,
            worries=worries(facts),
            stages=tuple(
                StageStanding(
                    state=state,
                    pulls=pulls.stages[state].pulls,
                    waiting=pulls.stages[state].waiting,
                    oldest_seconds=round(pulls.stages[state].oldest_seconds, 1),
                )
                for state in IN_FLIGHT
            ),
            failed=pulls.failed,
            queues=tuple(facts.queues.values()) if audience.admin and facts.queues else None,
            dead_letters=facts.dead_letters,
            nodes=facts.nodes,
            jobs=facts.jobs,
        )
        return View(overview, facts)

    def _facts(
        self,
        audience: Audience,
        systems: Sequence[str],
        site: SiteStanding,
        pulls: PullStandings,
    ) -> Facts:
        queues = None
        if site.bus is not None:
            depths = (each for each in site.bus.queues if _shown(each.name, systems))
            queues = {each.name: self._queue(each, pulls) for each in depths}
        facts = Facts(
            systems=systems,
            pulls=pulls,
            bus=self._bus.connected,
            catalog=not site.catalog_away,
            catalog_seconds=site.catalog_seconds,
            queues=queues,
        )
        if not audience.admin:
            return facts
        return replace(
            facts,
            dead_letters=None if site.bus is None else site.bus.dead_letters,
            nodes=site.nodes(systems),
            jobs=site.jobs(systems),
            jobs_with_failures=site.jobs_with_failures(systems),
            unsettled_seconds=site.unsettled_seconds,
            low=site.low,
        )

    def _queue(self, depth: QueueDepth, pulls: PullStandings) -> QueueStanding:
        oldest = self._oldest(depth, pulls)
        return QueueStanding(
            name=depth.name,
            waiting=depth.waiting,
            consumers=depth.consumers,
            oldest_seconds=None if oldest is None else round(oldest, 1),
        )

    def _oldest(self, depth: QueueDepth, pulls: PullStandings) -> float | None:
        """Of what pulls wait for the catalog knows it, whatever else waits beside them."""
        if depth.name in _GATEWAYS:
            return self._waits.oldest(depth.name, depth.waiting)
        if depth.name == CONVERTER_PULLS.name:
            return pulls.longest_conversion_wait
        for system, standing in pulls.placements.items():
            if depth.name == distributor_queue(system).name:
                return standing.longest_wait
        return 0.0 if not depth.waiting else None


def _shown(queue: str, systems: Sequence[str]) -> bool:
    """The queues of all systems, and those of these."""
    ours = {distributor_queue(system).name for system in systems}
    return queue in ours or not queue.startswith(distributor_queue("").name)
