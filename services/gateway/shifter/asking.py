"""Pulls as Shifter's clients ask for them: the same request starts a pull and then polls it.

So a request says nothing of whether its sender waits for an answer or wants the image anew. Who
waits is kept with the record: how the pull ended is told to each of them before a request of
theirs begins another one. Else a client that looks twice a second would start a failed pull again
and again, and never learn why.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from services.gateway.access import named_by_owner
from services.gateway.auth.identity import Principal
from services.gateway.pulls import Pulls
from services.gateway.wishes import PullTarget, Request
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.events import ImportedFile, Readers
from shared.models import utcnow
from shared.states import State

TOLD_FOR: Final = timedelta(minutes=10)
"""Whoever has not come back by then does not wait any more, and wants the image anew."""
MOST_WAITING: Final = 512
"""Whoever comes beyond that may begin a failed pull anew before the others have heard of it."""

Names = tuple[str, ...]


class WirePulls:
    """Pulls of the wire, over those of the gateway."""

    def __init__(self, catalog: Catalog, pulls: Pulls, timeout: float) -> None:
        self._catalog = catalog
        self._pulls = pulls
        self._timeout = timeout

    async def ask(
        self, principal: Principal, target: PullTarget, readers: Readers | None
    ) -> ImageRecord:
        """Where the pull is that this user waits for, or that begins now."""
        own = await self._pulls.own(target, principal)
        begin = partial(self._pulls.request, target, principal, readers=readers)
        return await self._asked(principal, own.key, readers, None, begin)

    async def ask_import(self, principal: Principal, asked: Request) -> ImageRecord:
        """The same of an import, which is polled like a pull."""
        begin = partial(self._pulls.begin, asked, principal)
        return await self._asked(principal, asked.target.key, asked.readers, asked.file, begin)

    async def _asked(
        self,
        principal: Principal,
        key: str,
        readers: Readers | None,
        file: ImportedFile | None,
        begin: Callable[[], Awaitable[ImageRecord]],
    ) -> ImageRecord:
        who = _name(principal)
        record = await self._catalog.images.get(key)
        if (
            record is not None
            and _what(record.file) == _what(file)
            and _waited_for(record, who, readers, utcnow())
        ):
            await self._change(record, partial(_without, who=who))
            return record
        record = await begin()
        if not record.state.in_flight:
            return record
        return await self._change(record, partial(_with, who=who))

    async def _change(
        self, record: ImageRecord, awaited: Callable[[ImageRecord], Names]
    ) -> ImageRecord:
        def step(found: ImageRecord | None) -> Change[ImageRecord] | None:
            if found is None or found.pull_id != record.pull_id:
                return None
            names = awaited(found)
            return None if names == found.awaited_by else Change(found.but(awaited_by=names))

        deadline = Deadline.after(self._timeout)
        return await self._catalog.images.change(record.key, step, deadline) or record


def _what(file: ImportedFile | None) -> object:
    return None if file is None else file.what


def _waited_for(record: ImageRecord, who: str, readers: Readers | None, now: datetime) -> bool:
    """It has ended, and this one has not been told; what else they ask for is done already."""
    ended = record.last_pull if record.state is State.READY else record.updated_at
    return (
        who in record.awaited_by
        and record.state in {State.READY, State.FAILURE}
        and now - ended < TOLD_FOR
        and named_by_owner(record, readers) == record
    )


def _with(record: ImageRecord, who: str) -> Names:
    if not record.state.in_flight:
        return _without(record, who)  # it has just ended, and this answer tells it
    names = record.awaited_by
    return names if who in names or len(names) >= MOST_WAITING else (*names, who)


def _without(record: ImageRecord, who: str) -> Names:
    return tuple(name for name in record.awaited_by if name != who)


def _name(principal: Principal) -> str:
    return principal.name if principal.uid is None else str(principal.uid)
