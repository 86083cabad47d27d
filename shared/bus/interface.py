"""What a service may ask of the bus, whichever adapter carries it.

Delivery is at least once. `publish` returns only when the bus has taken the event over; a handler
that returns acknowledges, one that raises has the event redelivered, and after `DELIVERY_LIMIT`
redeliveries the event lands among the dead letters, from where an operator can replay it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.deadline import Deadline
from shared.events import AnyEvent, Event
from shared.models import Instant, Tolerant

DELIVERY_LIMIT = 3  # redeliveries, so an event is tried four times

Handler = Callable[[AnyEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """A durable queue that competing workers share. Bound to exact routing keys."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AgentQueue:
    """One node's own queue: it lives as long as the agent, plus a grace for reconnection."""

    name: str
    keys: tuple[str, ...]
    expires_seconds: float = 60.0


class DeadLetter(Tolerant):
    """An event that no handler could digest, with where it failed. `body` is the raw message."""

    id: str
    queue: str
    reason: str
    deliveries: int
    died_at: Instant | None
    body: str


class Consumer(Protocol):
    """A running subscription."""

    async def stop(self, deadline: Deadline) -> None:
        """Take no more events, let running handlers finish within the deadline, then cancel them.

        What was not finished is delivered again, to this service or another.
        """


class Bus(Protocol):
    """The event bus."""

    durable: bool
    """Whether events outlive this process. If not, the gateway re-issues what was in flight."""

    async def open(self, deadline: Deadline) -> None:
        """Connect and declare every work queue; raises BusUnavailableError."""

    async def close(self) -> None: ...

    @property
    def connected(self) -> bool: ...

    async def publish(self, event: Event, deadline: Deadline) -> None:
        """Hand one event over: BusUnavailableError or UndeliverableError if it was not taken."""

    async def consume(
        self, queue: WorkQueue | AgentQueue, handler: Handler, *, slots: int
    ) -> Consumer:
        """Call `handler` for each event, at most `slots` at once."""

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """Look at the dead letters without removing them."""

    async def replay(self, letter_id: str, deadline: Deadline) -> bool:
        """Send one dead letter to its queue again; False if there is none of that id."""
