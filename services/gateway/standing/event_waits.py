"""How long the events that a gateway handles have waited: the age of its queues.

No queue tells when its first event was sent. The events that were handled last do: as most of them
say, since some node's clock is always wrong, and what is tried again has waited for other reasons.
"""

import time
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import partial
from statistics import median_low
from typing import Final

from shared.bus.handling import waited
from shared.bus.interface import Handler
from shared.events import AnyEvent

REMEMBERED_SECONDS: Final = 30.0
"""Other gateways take from the same queues: what this one saw longer ago says nothing."""
SAMPLE: Final = 9


@dataclass(frozen=True, slots=True)
class _Handled:
    """An event that was handled of late."""

    waited: float
    at: float


class EventWaits:
    """Of the queues that one gateway consumes."""

    def __init__(self) -> None:
        self._last: defaultdict[str, deque[_Handled]] = defaultdict(partial(deque, maxlen=SAMPLE))

    def of(self, queue: str, handler: Handler) -> Handler:
        """The handler, with a note of how long each event has waited."""

        async def handle(event: AnyEvent) -> None:
            self._last[queue].append(_Handled(waited(event), time.monotonic()))
            await handler(event)

        return handle

    def oldest(self, queue: str, waiting: int) -> float | None:
        """Seconds; None where that is not known."""
        if not waiting:
            return 0.0
        since = time.monotonic() - REMEMBERED_SECONDS
        waits = [each.waited for each in self._last[queue] if each.at >= since]
        return median_low(waits) if waits else None
