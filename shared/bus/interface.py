"""What a service may ask of the bus, whichever adapter carries it.

Delivery is at least once. `publish` returns only when the bus has taken the event over; a handler
that returns acknowledges, one that raises has the event redelivered, and after `DELIVERY_LIMIT`
redeliveries the event lands among the dead letters, from where an operator can replay it.
"""

from collections.abc import Awaitable, Callable
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


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The first of the dead letters, and how many there are."""

    items: tuple[DeadLetter, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Letters:
    """Which dead letters are meant: these, those of one queue, or all."""

    ids: frozenset[str] | None = None
    """Of several letters of one id at least one is meant: an event may be published twice."""
    queue: str | None = None

    def include(self, letter_id: str, queue: str) -> bool:
        return (self.ids is None or letter_id in self.ids) and self.queue in (None, queue)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a replay."""

    sent: tuple[tuple[str, str], ...]
    """The letters that are in their queues again: their ids and those queues."""
    left: int
    """How many dead letters there still are, wanted or not."""
    homeless: frozenset[str] = frozenset()
    """Queues that are gone; the letters that came from them stay."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How one work queue stands."""

    name: str
    waiting: int
    """Events that no consumer has taken."""
    consumers: int


@dataclass(frozen=True, slots=True)
class BusStandings:
    """How all work queues stand, as one look has found them."""

    queues: tuple[QueueDepth, ...]
    """In the order of the topology."""
    dead_letters: int


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

    async def standings(self, deadline: Deadline) -> BusStandings:
        """Look at the work queues without touching them; BusUnavailableError."""

    async def dead_letters(self, limit: int) -> DeadLetters:
        """Look at the dead letters without removing them."""

    async def replay(self, wanted: Letters, deadline: Deadline) -> Replayed:
        """Send dead letters to their queues again, in one pass over all of them.

        What dies again meanwhile is not taken again. At the deadline the pass ends; the rest is
        left as it was. BusUnavailableError if the bus goes: what was not sent is not lost.
        """

    async def discard(self, letter_id: str, deadline: Deadline) -> str | None:
        """Remove one dead letter for good; the queue it came from, None if there is none."""
