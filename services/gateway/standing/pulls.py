"""How the pulls stand that somebody may see: counted from the directory, without the catalog."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from services.gateway.directory import Entry
from shared.states import CONVERTING, IN_FLIGHT, State

LATELY: Final = timedelta(minutes=15)
"""Failures of this time count as a sign that something is wrong now."""
# About a millisecond of counting between two moments at which others may go on.
_AT_ONCE: Final = 500


@dataclass(slots=True)
class Standing:
    """Of the pulls in one state."""

    pulls: int = 0
    waiting: int = 0
    oldest_seconds: float = 0.0
    longest_wait: float = 0.0
    """Of those that no worker has taken up."""


@dataclass(slots=True)
class PullStandings:
    """Of all pulls under way, and those that failed of late."""

    stages: Mapping[State, Standing] = field(
        default_factory=lambda: {state: Standing() for state in IN_FLIGHT}
    )
    placements: dict[str, Standing] = field(default_factory=dict)
    """Of those in TRANSFER, by system."""
    failed: int = 0
    held_up: int = 0
    """Pulls that wait for a registry."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failures of late, by their codes."""

    @property
    def conversions_waiting(self) -> int:
        return sum(self.stages[state].waiting for state in CONVERTING)

    @property
    def longest_conversion_wait(self) -> float:
        return max(self.stages[state].longest_wait for state in CONVERTING)

    def add(self, entry: Entry, now: datetime) -> None:
        flow = entry.flow
        if flow is None:
            return
        seconds = max(0.0, (now - flow.since).total_seconds())
        if entry.state is State.FAILURE:
            self.failed += 1
            if flow.failure is not None and now - flow.since <= LATELY:
                self.failures[flow.failure] += 1
            return
        self.held_up += flow.held_up
        standings = [self.stages[entry.state]]
        if entry.state is State.TRANSFER:
            standings.append(self.placements.setdefault(entry.system, Standing()))
        for standing in standings:
            standing.pulls += 1
            standing.oldest_seconds = max(standing.oldest_seconds, seconds)
            if flow.waiting:
                standing.waiting += 1
                standing.longest_wait = max(standing.longest_wait, seconds)


async def pull_standings(
    entries: Sequence[Entry], may_see: Callable[[Entry], bool], now: datetime
) -> PullStandings:
    """Of those entries that may be seen."""
    standings = PullStandings()
    for start in range(0, len(entries), _AT_ONCE):
        if start:
            await asyncio.sleep(0)
        _count(standings, filter(may_see, entries[start : start + _AT_ONCE]), now)
    return standings


def _count(standings: PullStandings, entries: Iterable[Entry], now: datetime) -> None:
    for entry in entries:
        standings.add(entry, now)
