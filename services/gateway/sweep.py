"""The sweep: whatever has gone quiet is taken up again.

Every gateway sweeps; compare-and-set lets one of them win. A gateway that comes back after an
outage first gives the workers one lease to be heard, since their news waits on the bus.
"""

from collections.abc import Awaitable, Callable

from shared.deadline import Deadline

BATCH = 200

Overdue = Callable[[int], Awaitable[int]]


class Sweep:
    """Runs each source of overdue work until it has none left."""

    def __init__(self, sources: tuple[Overdue, ...], grace: float) -> None:
        self._sources = sources
        self._quiet_until = Deadline.after(grace)

    async def run(self) -> None:
        if not self._quiet_until.expired:
            return
        for overdue in self._sources:
            while await overdue(BATCH) == BATCH:
                continue
