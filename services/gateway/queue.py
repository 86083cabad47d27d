"""The queue as it is shown: page by page, and live.

Live, a follower is first told all of it (`snapshot`), then each pull that changed (`pull`) and each
that it sees no longer (`gone`, with the pull's id): it is done, or not for its eyes any more. The
id of an event stands for all that was told with it. A client that comes back with the id of what
is true now goes on from there, at any gateway; any other gets a new snapshot.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from services.gateway.auth.identity import Principal
from services.gateway.directory import Entry, queue_place
from services.gateway.feed import ChangeFeed
from services.gateway.live.looking import Looking, Seen, heard
from services.gateway.lookups import Lookups
from services.gateway.standing.audience import Audience
from shared.api import QueueGone
from shared.deadline import Deadline

MOST_LIVE: Final = 1000
"""Pulls that a follower is shown at a time: what is under way before what has failed."""
PACE_SECONDS: Final = 0.25
SLOWEST_SECONDS: Final = 1.0
"""Between two looks, however little or much happens meanwhile."""
BYTES_PER_SECOND: Final = 256 << 10
"""To each follower, about."""
_FOR_EVER: Final = Deadline.after(float("inf"))


@dataclass(frozen=True, slots=True)
class _Told:
    """What a follower knows of one pull."""

    pull_id: str
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class QueueState:
    """The queue as an audience sees it at one moment."""

    number: int
    mark: str
    told: Mapping[str, _Told]
    bodies: Mapping[str, bytes]
    difference: bytes
    """What is news to those who know the state with the number before."""

    @property
    def snapshot(self) -> bytes:
        items = b",".join(self.bodies.values())
        data = b'{"items":[' + items + b'],"next":null}'
        return f"id: {self.mark}\n".encode() + event("snapshot", data)


class QueueStream:
    """What changes in the queue: looked for once for all followers who may see the same."""

    def __init__(self, lookups: Lookups, feed: ChangeFeed) -> None:
        self._lookups = lookups
        self._feed = feed
        self._looking: Looking[_Subject, QueueState] = Looking(self._look)

    async def stop(self) -> None:
        await self._looking.stop()

    async def events(
        self, principal: Principal, systems: Sequence[str], last: str | None, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        news = asyncio.Event()
        with self.following(principal, systems, last, news) as follower:
            while await heard(news, deadline):
                if said := await follower.news():
                    yield said

    @contextmanager
    def following(
        self, principal: Principal, systems: Sequence[str], last: str | None, news: asyncio.Event
    ) -> Iterator["QueueFollower"]:
        subject = _Subject(Audience.of(principal), tuple(systems))
        with self._looking.following(subject, news, free=principal.admin) as seen:
            yield QueueFollower(self, subject, seen, last)

    async def difference(self, subject: "_Subject", told: QueueState, now: QueueState) -> bytes:
        """For who is more than one state behind."""
        return await self._difference(subject, told.told, now.told, now.bodies, now.mark)

    async def _look(self, subject: "_Subject") -> AsyncGenerator[QueueState, None]:
        before: QueueState | None = None
        async with aclosing(self._feed.queue_changes(_FOR_EVER)) as changes:
            async for _ in changes:
                now = await self._state(subject, before)
                pause = PACE_SECONDS
                if now is not before:
                    yield now
                    before, pause = now, _pause(now)
                await asyncio.sleep(pause)

    async def _state(self, subject: "_Subject", before: QueueState | None) -> QueueState:
        """The state before, if nothing has changed."""
        principal = subject.audience.principal
        entries = await self._lookups.queued(principal, subject.systems)
        seen = await self._lookups.pulls(principal, entries[:MOST_LIVE])
        shown = [(entry, made) for entry, made in seen if entry.queued]
        told = {entry.key: _Told(entry.pull_id, entry.version) for entry, _ in shown}
        bodies = {entry.key: made.body for entry, made in shown}
        if before is None:
            return QueueState(0, _mark(subject.systems, told), told, bodies, b"")
        if told == before.told:
            return before
        mark = _mark(subject.systems, told)
        difference = await self._difference(subject, before.told, told, bodies, mark)
        return QueueState(before.number + 1, mark, told, bodies, difference)

    async def _difference(
        self,
        subject: "_Subject",
        told: Mapping[str, _Told],
        known: Mapping[str, _Told],
        bodies: Mapping[str, bytes],
        mark: str,
    ) -> bytes:
        """Every event but the last without an id: between them nothing is complete."""
        parts: list[bytes] = []
        for key, before in told.items():
            after = known.get(key)
            if after is None:
                parts += await self._ended(subject.audience, key, before.pull_id)
            if after is None or after.pull_id != before.pull_id:
                gone = QueueGone(id=before.pull_id).model_dump_json().encode()
                parts.append(event("gone", gone))
        parts += [event("pull", bodies[key]) for key, new in known.items() if told.get(key) != new]
        if parts:
            parts[-1] = b"id: " + mark.encode() + b"\n" + parts[-1]
        return b"".join(parts)

    async def _ended(self, audience: Audience, key: str, pull_id: str) -> list[bytes]:
        """How a pull ended that is not in the queue any more, for who may still see it."""
        shown = await self._lookups.pull_of(audience.principal, key)
        return [event("pull", shown.body)] if shown and shown.pull_id == pull_id else []


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is looked at."""

    audience: Audience
    systems: tuple[str, ...]


class QueueFollower:
    """One follower: what it knows, and what is news to it."""

    def __init__(
        self, stream: QueueStream, subject: _Subject, seen: Seen[QueueState], last: str | None
    ) -> None:
        self._stream = stream
        self._subject = subject
        self._seen = seen
        self._last = last
        self._told: QueueState | None = None

    async def news(self) -> bytes:
        """Nothing, if it knows all."""
        told, now = self._told, self._seen.now()
        if now is None or now is told:
            return b""
        self._told = now
        if told is None:
            return b": as you know it\n\n" if self._last == now.mark else now.snapshot
        if told.number == now.number - 1:
            return now.difference
        return await self._stream.difference(self._subject, told, now)


def _pause(told: QueueState) -> float:
    """Long enough for what was told: where very much changes, it is told less often."""
    return min(SLOWEST_SECONDS, max(PACE_SECONDS, len(told.difference) / BYTES_PER_SECOND))


def queue_page(entries: Sequence[Entry], after: str | None, limit: int) -> list[Entry]:
    """The entries beyond the one at which a page ended, also if that has left meanwhile."""
    if after is not None:
        entries = [each for each in entries if place_text(each) < after]
    return list(entries[:limit])


def place_text(entry: Entry) -> str:
    """Where an entry stands, as text of the same order."""
    in_flight, requested_at, key = queue_place(entry)
    return f"{in_flight:d} {requested_at.timestamp():017.6f} {key}"


def event(kind: str, data: bytes) -> bytes:
    return f"event: {kind}\ndata: ".encode() + data + b"\n\n"


def _mark(systems: Sequence[str], known: Mapping[str, _Told]) -> str:
    """Stands for what a follower knows, and tells nothing of it."""
    lines = [f"{key} {told.pull_id} {told.version}" for key, told in sorted(known.items())]
    text = "\n".join((*sorted(systems), "", *lines))
    return blake2b(text.encode(), digest_size=12).hexdigest()
