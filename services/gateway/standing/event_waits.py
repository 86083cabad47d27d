"""How long the events that a gateway handles have waited: the age of its queues.

No queue tells when its first event was sent. The event that was handled last does.
"""

import time
from dataclasses import dataclass
from typing import Final

from shared.bus.handling import waited
from shared.bus.interface import Handler
from shared.events import AnyEvent

REMEMBERED_SECONDS: Final = 30.0
"""Other gateways take from the same queues: what this one saw longer ago says nothing."""


@dataclass(frozen=True, slots=True)
class _Last:
    """The event that was handled last."""

    waited: float
    at: float


class EventWaits:
    """Of the queues that one gateway consumes."""

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}

    def of(self, queue: str, handler: Handler) -> Handler:
        """The handler, with a note of how long each event has waited."""

        async def handle(event: AnyEvent) -> None:
            self._last[queue] = _Last(waited(event), time.monotonic())
            await handler(event)

        return handle

    def oldest(self, queue: str, waiting: int) -> float | None:
        """Seconds; None where that is not known."""
        if not waiting:
            return 0.0
        last = self._last.get(queue)
        if last is None or time.monotonic() - last.at > REMEMBERED_SECONDS:
            return None
        return last.waited
