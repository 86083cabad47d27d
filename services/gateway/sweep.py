"""The sweep: whatever has gone quiet is taken up again.

Every gateway sweeps; compare-and-set lets one of them win. While the bus is away no worker can be
heard, so none is given up; when it is back, or a gateway starts, the workers first get one lease.
"""

from collections.abc import Awaitable, Callable

from shared.deadline import Deadline

BATCH = 200

Overdue = Callable[[int], Awaitable[int]]


class Sweep:
    """Runs a source of overdue work until it has none left, if workers could have been heard."""

    def __init__(self, grace: float, hearing: Callable[[], bool]) -> None:
        self._grace = grace
        self._hearing = hearing
        self._quiet_until = Deadline.after(grace)

    async def run(self, overdue: Overdue) -> None:
        if not self._hearing():
            self._quiet_until = Deadline.after(self._grace)
        if not self._quiet_until.expired:
            return
        while await overdue(BATCH) == BATCH:
            continue
