"""Where the history's figures come from: the overview of all systems, and the ledger of packs."""

from collections.abc import Mapping
from typing import Final, Protocol

from services.gateway.auth.identity import Principal, Scope
from services.gateway.feed import ChangeFeed
from services.gateway.standing.worries import AWAY
from services.gateway.stock.pack_ledger import PackLedger
from shared.api import Overview

KEEPER: Final = Principal(
    "history", frozenset({Scope.READ, Scope.ADMIN}), via="token", uid=None, gids=frozenset()
)
"""Sees everything, as operators do, who alone are shown what is kept."""


class Overviews(Protocol):
    """Where an overview comes from."""

    async def current(self, principal: Principal, systems: tuple[str, ...]) -> Overview: ...


class OverviewFigures:
    """Pulls, queues, nodes and jobs."""

    def __init__(self, overviews: Overviews, systems: tuple[str, ...]) -> None:
        self._overviews = overviews
        self._systems = systems

    async def figures(self) -> Mapping[str, float | None]:
        seen = await self._overviews.current(KEEPER, self._systems)
        nodes, jobs = seen.nodes, seen.jobs
        return {
            **_of_pulls(seen),
            "queue_events": None if seen.queues is None else sum(q.waiting for q in seen.queues),
            "dead_letters": seen.dead_letters,
            "nodes_alive": None if nodes is None else nodes.alive,
            "nodes_lost": None if nodes is None else nodes.lost,
            "jobs_running": None if jobs is None else jobs.running,
            "job_nodes_pending": None if jobs is None else jobs.pending,
            "job_nodes_failed": None if jobs is None else jobs.failed,
        }


def _of_pulls(seen: Overview) -> Mapping[str, float | None]:
    """With the catalog away, what is shown of pulls is what was known last."""
    if any(worry.code == AWAY for worry in seen.worries):
        return dict.fromkeys(("pulls_waiting", "pulls_running", "oldest_wait_seconds"))
    waiting = sum(stage.waiting for stage in seen.stages)
    waits = [stage.oldest_seconds for stage in seen.stages if stage.waiting]
    return {
        "pulls_waiting": waiting,
        "pulls_running": sum(stage.pulls for stage in seen.stages) - waiting,
        "oldest_wait_seconds": max(waits, default=0.0),
    }


class ImageFigures:
    """Images, and what they are made of."""

    def __init__(self, feed: ChangeFeed, ledger: PackLedger) -> None:
        self._feed = feed
        self._ledger = ledger

    async def figures(self) -> Mapping[str, float | None]:
        await self._feed.fresh()
        totals = self._ledger.totals
        return {
            "images": totals.images,
            "image_bytes": totals.image_bytes,
            "pack_bytes": totals.pack_bytes,
        }
