"""The queue as it is shown: page by page, and live.

Live, a follower is first told all of it (`snapshot`), then each pull that changed (`pull`) and each
that it sees no longer (`gone`, with the pull's id): it is done, or not for its eyes any more. The
id of an event stands for all that was told with it. A client that comes back with the id of what
is true now goes on from there, at any gateway; any other gets a new snapshot.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from services.gateway.auth.identity import Principal
from services.gateway.directory import Entry, queue_place
from services.gateway.feed import ChangeFeed
from services.gateway.lookups import Lookups, Rendered
from shared.api import QueueGone
from shared.deadline import Deadline

MOST_LIVE: Final = 1000
"""Pulls that a follower is shown at a time: what is under way before what has failed."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a follower knows of one pull."""

    pull_id: str
    version: int


class QueueStream:
    """What changes in the queue, for one follower."""

    def __init__(self, lookups: Lookups, feed: ChangeFeed, seconds: float) -> None:
        self._lookups = lookups
        self._feed = feed
        self._seconds = seconds

    async def events(
        self, principal: Principal, systems: Sequence[str], last: str | None
    ) -> AsyncGenerator[bytes, None]:
        told: dict[str, _Told] | None = None
        deadline = Deadline.after(self._seconds)
        async with aclosing(self._feed.queue_changes(deadline)) as changes:
            async for _ in changes:
                now = await self._now(principal, systems)
                known = {key: _Told(e.pull_id, e.version) for key, (e, _) in now.items()}
                if told is None:
                    mark = _mark(systems, known)
                    yield b": as you know it\n\n" if last == mark else _snapshot(mark, now)
                elif told != known:
                    yield await self._difference(principal, systems, told, known, now)
                told = known

    async def _now(
        self, principal: Principal, systems: Sequence[str]
    ) -> dict[str, tuple[Entry, Rendered]]:
        entries = await self._lookups.queued(principal, systems)
        seen = await self._lookups.pulls(principal, entries[:MOST_LIVE])
        return {entry.key: (entry, made) for entry, made in seen if entry.queued}

    async def _difference(
        self,
        principal: Principal,
        systems: Sequence[str],
        told: Mapping[str, _Told],
        known: Mapping[str, _Told],
        now: Mapping[str, tuple[Entry, Rendered]],
    ) -> bytes:
        """Every event but the last without an id: between them nothing is complete."""
        parts: list[bytes] = []
        for key, before in told.items():
            after = known.get(key)
            if after is None:
                parts += await self._ended(principal, key, before.pull_id)
            if after is None or after.pull_id != before.pull_id:
                gone = QueueGone(id=before.pull_id).model_dump_json().encode()
                parts.append(_event("gone", gone))
        parts += [
            _event("pull", now[key][1].body) for key, new in known.items() if told.get(key) != new
        ]
        parts[-1] = b"id: " + _mark(systems, known).encode() + b"\n" + parts[-1]
        return b"".join(parts)

    async def _ended(self, principal: Principal, key: str, pull_id: str) -> list[bytes]:
        """How a pull ended that is not in the queue any more, for who may still see it."""
        shown = await self._lookups.pull_of(principal, key)
        return [_event("pull", shown.body)] if shown and shown.pull_id == pull_id else []


def queue_page(entries: Sequence[Entry], after: str | None, limit: int) -> list[Entry]:
    """The entries beyond the one at which a page ended, also if that has left meanwhile."""
    if after is not None:
        entries = [each for each in entries if place_text(each) < after]
    return list(entries[:limit])


def place_text(entry: Entry) -> str:
    """Where an entry stands, as text of the same order."""
    in_flight, requested_at, key = queue_place(entry)
    return f"{in_flight:d} {requested_at.timestamp():017.6f} {key}"


def _snapshot(mark: str, now: Mapping[str, tuple[Entry, Rendered]]) -> bytes:
    items = b",".join(made.body for _, made in now.values())
    return f"id: {mark}\n".encode() + _event("snapshot", b'{"items":[' + items + b'],"next":null}')


def _event(kind: str, data: bytes) -> bytes:
    return f"event: {kind}\ndata: ".encode() + data + b"\n\n"


def _mark(systems: Sequence[str], known: Mapping[str, _Told]) -> str:
    """Stands for what a follower knows, and tells nothing of it."""
    lines = [f"{key} {told.pull_id} {told.version}" for key, told in sorted(known.items())]
    text = "\n".join((*sorted(systems), "", *lines))
    return blake2b(text.encode(), digest_size=12).hexdigest()
