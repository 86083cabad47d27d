"""All that a dashboard's first page shows, as one stream: the queue, the overview, the jobs.

What is looked up is looked up once for all who may see the same, at most once a second, and only
while somebody follows. The events of the queue are those of `queue.py`, with its ids; the others
have none, since each of them says everything anew.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

from services.gateway.auth.identity import Principal
from services.gateway.jobs.pages import JobPages
from services.gateway.jobs.views import JobFilter
from services.gateway.live.looking import Looking, Seen, heard
from services.gateway.queue import QueueStream, event
from services.gateway.standing.audience import Audience
from shared.api import Overview
from shared.catalog.interface import Catalog
from shared.deadline import Deadline

PACE_SECONDS: Final = 1.0
AGES_SECONDS: Final = 5.0
"""What has only grown older is told so often."""
OVERVIEWS_PER_SECOND: Final = 100
"""In all: with a thousand pulls in the queue, each is two milliseconds of counting."""
NEWEST_JOBS: Final = 100
_OF_THE_TIME: Final = 4
"""Looking at the jobs takes a quarter of the time at most, and no more for many audiences."""


class Overviews(Protocol):
    """Where an overview comes from."""

    async def current(self, principal: Principal, systems: Sequence[str]) -> Overview: ...


@dataclass(frozen=True, slots=True)
class _Subject:
    """Which overview, or whose jobs; `system` is None where all are wanted."""

    audience: Audience
    system: str | None
    systems: tuple[str, ...]


class Live:
    """The streams of one gateway."""

    def __init__(
        self, queue: QueueStream, overviews: Overviews, jobs: JobPages, catalog: Catalog
    ) -> None:
        self._queue = queue
        self._overviews = overviews
        self._jobs = jobs
        self._catalog = catalog
        self._looking_over: Looking[_Subject, bytes] = Looking(self._overview)
        self._looking_at_jobs: Looking[_Subject, bytes] = Looking(self._job_page)
        self._turn = asyncio.Lock()

    async def stop(self) -> None:
        await self._looking_over.stop()
        await self._looking_at_jobs.stop()

    async def events(
        self,
        principal: Principal,
        system: str | None,
        systems: Sequence[str],
        last: str | None,
        deadline: Deadline,
    ) -> AsyncGenerator[bytes, None]:
        """`systems` are those that `system` stands for."""
        audience = Audience.of(principal)
        subject = _Subject(audience, system, tuple(systems))
        news = asyncio.Event()
        with ExitStack() as stack:
            queue = stack.enter_context(self._queue.following(principal, systems, last, news))
            free = audience.admin
            followed = [self._looking_over.following(subject, news, free=free)]
            if audience.admin or audience.uid is not None:
                followed.append(self._looking_at_jobs.following(subject, news, free=free))
            others = [_Told(stack, each) for each in followed]
            while await heard(news, deadline):
                said = await queue.news() + b"".join(each.news() for each in others)
                if said:
                    yield said

    async def _overview(self, subject: _Subject) -> AsyncGenerator[bytes, None]:
        told: Overview | None = None
        told_at = 0.0
        while True:
            now = await self._overviews.current(subject.audience.principal, subject.systems)
            clock = time.monotonic()
            if told is None or clock - told_at > AGES_SECONDS or _lasting(now) != _lasting(told):
                yield event("overview", now.model_dump_json().encode())
                told, told_at = now, clock
            await asyncio.sleep(pace(len(self._looking_over)))

    async def _job_page(self, subject: _Subject) -> AsyncGenerator[bytes, None]:
        told = b""
        looked_at, position = 0.0, (0, 0)
        while True:
            began = time.monotonic()
            async with self._turn:
                known, position = position, await self._position()
                if position != known or began - looked_at > AGES_SECONDS:
                    looked_at, page = began, await self._page(subject)
                    if page != told:
                        yield event("jobs", page)
                        told = page
                spent = time.monotonic() - began
            await asyncio.sleep(max(PACE_SECONDS, (_OF_THE_TIME - 1) * spent))

    async def _position(self) -> tuple[int, int]:
        """As long as it stays the same, nothing is counted."""
        return await self._catalog.jobs.position(), await self._catalog.stagings.position()

    async def _page(self, subject: _Subject) -> bytes:
        wanted = JobFilter(system=subject.system, running=True)
        page = await self._jobs.page(subject.audience.principal, wanted, NEWEST_JOBS)
        return page.model_dump_json().encode()


class _Told:
    """What one follower has been told of what is told as a whole each time."""

    def __init__(self, stack: ExitStack, looking: AbstractContextManager[Seen[bytes]]) -> None:
        self._seen = stack.enter_context(looking)
        self._told: bytes | None = None

    def news(self) -> bytes:
        now = self._seen.now()
        if now is None or now is self._told:
            return b""
        self._told = now
        return now


def pace(audiences: int) -> float:
    """Seconds between two looks at the overview of each of so many audiences."""
    return max(PACE_SECONDS, audiences / OVERVIEWS_PER_SECOND)


def _lasting(overview: Overview) -> object:
    """What of it does not change just because time passes."""
    ages = {"__all__": {"oldest_seconds"}}
    return overview.model_dump(exclude={"at": True, "stages": ages, "queues": ages})
