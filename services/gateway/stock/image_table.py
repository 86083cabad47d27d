"""Chooses and orders images for a table, of all that somebody may see, from the directory.

Of a hundred thousand records a sort alone would stop the event loop for a while, in a thread as
well. So the best few are kept while all are looked at, a thousand at a time.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol

from services.gateway.access import listed
from services.gateway.auth.identity import Principal
from services.gateway.directory import Directory, Entry
from services.gateway.expiring import last_use
from services.gateway.standing.audience import Audience
from services.gateway.stock.pack_ledger import PackLedger
from shared.errors import DrayError

Sort = Literal["size", "name", "used", "expires", "ready", "shared"]
Order = Literal["asc", "desc"]

AT_ONCE: Final = 2
MOST_ASKING: Final = 64
MOST_OF_ONE: Final = 16
"""A user who asks without end leaves room for others. The public is one, and admins are free."""
_PIECE: Final = 250
_SLICE_SECONDS: Final = 0.002
_NEVER: Final = float(1 << 52)
"""Later than any time, for what does not expire."""


class TooManyTablesError(DrayError):
    """More tables are asked for than a gateway makes at a time."""

    code = "too_many_tables"
    status = 503
    retryable = True


class Known(Protocol):
    """The directory, and how to have it be true."""

    @property
    def directory(self) -> Directory: ...

    async def fresh(self) -> None: ...


class Spot(NamedTuple):
    """Where an image stands in the order: by a value, and among equals by its key."""

    value: float | str
    key: str


Spots = list[tuple[Spot, Entry]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images, and in which order. `q` is in lower case."""

    systems: tuple[str, ...]
    q: str = ""
    sort: Sort = "size"
    descending: bool = True
    beyond: Spot | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the images, and what all that match come to."""

    entries: tuple[Entry, ...]
    total: int
    bytes: int
    last: Spot | None
    """Of this page, if there are more."""


class ImageTables:
    """Pages of images, for whoever may see them."""

    def __init__(self, feed: Known, ledger: PackLedger) -> None:
        self._feed = feed
        self._ledger = ledger
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asking: Counter[Audience] = Counter()

    async def page(self, principal: Principal, wanted: Wanted) -> Page:
        with self._place(Audience.of(principal)):
            await self._feed.fresh()
            async with self._turns:
                return await self._page(principal, wanted)

    @contextmanager
    def _place(self, audience: Audience) -> Iterator[None]:
        """Counts who waits for a table, or has it made."""
        too_many = not audience.admin and self._asking[audience] >= MOST_OF_ONE
        if too_many or self._asking.total() >= MOST_ASKING:
            raise TooManyTablesError("many tables are being made already: ask again in a moment")
        self._asking[audience] += 1
        try:
            yield
        finally:
            self._asking[audience] -= 1
            if not self._asking[audience]:
                del self._asking[audience]

    async def _page(self, principal: Principal, wanted: Wanted) -> Page:
        value = self._value(principal, wanted.sort)
        matching = _Matching(principal, wanted)
        best: Spots = []
        total = size = 0
        began = time.perf_counter()
        place = ""
        while piece := self._feed.directory.following(place, _PIECE):
            place = piece[-1].key
            found = [entry for entry in piece if matching(entry)]
            total += len(found)
            size += sum(entry.size for entry in found)
            spots = [(Spot(value(entry), entry.key), entry) for entry in found]
            best = _best(best, spots, wanted)
            if time.perf_counter() - began > _SLICE_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
        shown = best[: wanted.limit]
        return Page(
            entries=tuple(entry for _, entry in shown),
            total=total,
            bytes=size,
            last=shown[-1][0] if len(best) > wanted.limit else None,
        )

    def shared_bytes(self, principal: Principal, entry: Entry) -> int | None:
        return self._ledger.shared_bytes(entry, private_too=principal.admin)

    def _value(self, principal: Principal, sort: Sort) -> Callable[[Entry], float | str]:
        def shared(entry: Entry) -> float:
            return float(self.shared_bytes(principal, entry) or 0)

        return shared if sort == "shared" else _VALUES[sort]


class _Matching:
    """Whether an image is one of those that are wanted, and may be seen."""

    def __init__(self, principal: Principal, wanted: Wanted) -> None:
        self._principal = principal
        self._systems = frozenset(wanted.systems)
        self._q = wanted.q

    def __call__(self, entry: Entry) -> bool:
        if entry.image_id is None or entry.system not in self._systems:
            return False
        if self._q not in entry.reference.lower() and not entry.image_id.startswith(self._q):
            return False
        return listed(self._principal, entry)


def _best(best: Spots, more: Spots, wanted: Wanted) -> Spots:
    """So many as a page has, and one more, which tells that there are more."""
    descending, beyond = wanted.descending, wanted.beyond
    full = len(best) > wanted.limit
    worst = best[-1][0] if full else None
    better = [
        each
        for each in more
        if (beyond is None or _is_before(beyond, each[0], descending=descending))
        and (worst is None or _is_before(each[0], worst, descending=descending))
    ]
    if not better:
        return best
    together = sorted([*best, *better], key=_spot, reverse=descending)
    return together[: wanted.limit + 1]


def _is_before(one: Spot, other: Spot, *, descending: bool) -> bool:
    return one > other if descending else one < other


def _spot(pair: tuple[Spot, Entry]) -> Spot:
    return pair[0]


def _at(instant: datetime | None, otherwise: float) -> float:
    return otherwise if instant is None else instant.timestamp()


_VALUES: Final[dict[Sort, Callable[[Entry], float | str]]] = {
    "size": lambda entry: float(entry.size),
    "name": lambda entry: entry.reference,
    "used": lambda entry: last_use(entry).timestamp(),
    "expires": lambda entry: _NEVER if entry.pinned else _at(entry.expires_at, _NEVER),
    "ready": lambda entry: _at(entry.ready_at, 0.0),
}
