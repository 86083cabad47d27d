"""Services to talk to each other over a bus in tests, and the events they send."""

import asyncio
import uuid
from collections.abc import Iterable

from shared.bus.interface import WorkQueue
from shared.deadline import Deadline
from shared.events import AnyEvent, JobReleased, agent_key


def soon() -> Deadline:
    return Deadline.after(20)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def work_queue(*nodes: str) -> WorkQueue:
    """A queue of its own for events about these nodes."""
    return WorkQueue(unique("work"), tuple(agent_key(node) for node in nodes))


def released(node: str, job_id: str = "1") -> JobReleased:
    return JobReleased(correlation_id=f"job-{job_id}", node=node, job_id=job_id)


class Recorder:
    """A handler that remembers what it was given."""

    def __init__(self) -> None:
        self.events: list[AnyEvent] = []

    async def __call__(self, event: AnyEvent) -> None:
        self.events.append(event)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


class FailingRecorder(Recorder):
    """Raises the given errors one by one, then succeeds."""

    def __init__(self, errors: Iterable[BaseException]) -> None:
        super().__init__()
        self._errors = list(errors)

    async def __call__(self, event: AnyEvent) -> None:
        await super().__call__(event)
        if self._errors:
            raise self._errors.pop(0)


class BlockedRecorder(Recorder):
    """Holds every event until it is released; tells how many are held, and the most ever."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()
        self.held = 0
        self.most_held = 0
        self.cancelled = 0

    async def __call__(self, event: AnyEvent) -> None:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.held -= 1
        await super().__call__(event)
