"""Expiry of images: by itself when nobody has used them for long, and by hand; and pins."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import Counter

from services.gateway.auth.identity import Principal
from services.gateway.expiring import (
    USE_COUNTS_AFTER,
    Changed,
    Usable,
    asked_again,
    dismissed,
    last_use,
    pin,
    reviewed,
    used,
)
from services.gateway.held import Held
from services.gateway.meaning import Meaning, manageable
from services.gateway.transitions import PullTarget
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.logging import get_logger
from shared.models import ImageId, utcnow
from shared.states import State
from shared.tasks import cancel_all, repeat

FLUSH_SECONDS: Final = 10.0
MOST_USES: Final = 10_000
_PAGE: Final = 100
_HELD_SECONDS: Final = 30.0
"""How old the word on jobs may be that only spares an image; whether its file goes asks anew."""

EXPIRED = Counter(
    "dray_references_expired_total", "References that stand for nothing any more.", ("why",)
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What a run over all images of some systems did."""

    seen: int
    expired: tuple[ImageRecord, ...]
    held: int
    """Would have expired, but jobs are using them."""


class Expiry:
    """Lets images expire, and keeps those that are used or pinned."""

    def __init__(
        self,
        catalog: Catalog,
        held: Held,
        days: Callable[[str], int | None],
        timeout: float,
    ) -> None:
        """`days` says for a system after how many days without use; None: there is no such one."""
        self._catalog = catalog
        self._meaning = Meaning(catalog)
        self._held = held
        self._days = days
        self._timeout = timeout
        self._uses: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        flushing = repeat("image-uses", FLUSH_SECONDS, self.flush)
        self._tasks = [asyncio.create_task(flushing, name="image-uses")]

    async def stop(self) -> None:
        await cancel_all(*self._tasks)
        with suppress(DrayError):  # then these uses count for nothing
            await self.flush()

    def used(self, record: Usable) -> None:
        """Somebody has looked the image up, pulled it, or runs a job in it. Costs nothing.

        The catalog hears of it a little later, and at most once an hour.
        """
        if utcnow() - last_use(record) < USE_COUNTS_AFTER:
            return
        if record.key in self._uses or len(self._uses) < MOST_USES:
            self._uses[record.key] = record.system

    async def flush(self) -> None:
        """Write down what was used of late; what cannot be written now waits for the next time."""
        now = utcnow()
        waiting = list(self._uses)
        for start in range(0, len(waiting), _PAGE):
            steps = {
                key: partial(used, at=now, days=self._days(self._uses[key]) or 0)
                for key in waiting[start : start + _PAGE]
            }
            deadline = Deadline.after(self._timeout)
            overtaken = await self._catalog.images.change_all(steps, deadline)
            for key in steps.keys() - overtaken:
                self._uses.pop(key, None)

    async def overdue(self, record: ImageRecord) -> None:
        """The sweep found a record whose time has come, and no pull of it is under way."""
        now = utcnow()
        days = self._days(record.system)
        match record.state:
            case State.READY:
                await self._review(record, days or 0)
            case State.EXPIRING:
                step = partial(asked_again, now=now, reachable=days is not None)
                await self._change(record.key, step)
            case State.EXPIRED:
                await self._catalog.images.remove(record.key, record.version)

    async def expire(
        self, target: PullTarget, principal: Principal, *, owner: int | None = None
    ) -> tuple[ImageRecord, ...]:
        """What the principal means by a reference stands for nothing from now on."""
        records = await self._meaning.managed(target, principal, owner)
        return await self._expire(records)

    async def expire_id(
        self, system: str, image_id: ImageId, principal: Principal
    ) -> tuple[ImageRecord, ...]:
        """The same for all references to one image."""
        return await self._expire(await self._managed_by_id(system, image_id, principal))

    async def pin(
        self,
        target: PullTarget,
        principal: Principal,
        *,
        pinned: bool,
        owner: int | None = None,
    ) -> tuple[ImageRecord, ...]:
        records = await self._meaning.managed(target, principal, owner)
        return tuple([await self._pin(record, pinned=pinned) for record in records])

    async def pin_id(
        self, system: str, image_id: ImageId, principal: Principal, *, pinned: bool
    ) -> tuple[ImageRecord, ...]:
        records = await self._managed_by_id(system, image_id, principal)
        return tuple([await self._pin(record, pinned=pinned) for record in records])

    async def run_now(self, *systems: str) -> Reviewed:
        """Expire what is overdue, by the settings as they are now."""
        seen, held = 0, 0
        expired: list[ImageRecord] = []
        for system in systems:
            after: str | None = None
            where = {"system": system, "state": State.READY.value}
            while page := await self._catalog.images.find(where, after=after, limit=_PAGE):
                for record in page:
                    seen += 1
                    after_review = await self._review(record, self._days(system) or 0)
                    if after_review is not None and after_review.state is State.EXPIRING:
                        expired.append(after_review)
                    elif after_review is not None and after_review.last_used != record.last_used:
                        held += 1
                after = page[-1].key
        log.info("expired_what_is_due", seen=seen, expired=len(expired), held=held)
        return Reviewed(seen, tuple(expired), held)

    async def _review(self, record: ImageRecord, days: int) -> ImageRecord | None:
        """The record if that changed it."""
        held = await self._held.images(record.system, at_most_old=_HELD_SECONDS)
        in_use = record.image_id in held
        before = record.version
        step = partial(reviewed, now=utcnow(), days=days, held=in_use)
        after = await self._change(record.key, step)
        if after is None or after.version == before:
            return None
        if after.state is State.EXPIRING:
            EXPIRED.labels("unused").inc()
            log.info("image_expired", reference=after.reference, system=after.system, why="unused")
        return after

    async def _expire(self, records: list[ImageRecord]) -> tuple[ImageRecord, ...]:
        expired = []
        for record in records:
            after = await self._change(record.key, partial(dismissed, now=utcnow()))
            if after is not None:
                EXPIRED.labels("asked").inc()
                log.info(
                    "image_expired", reference=after.reference, system=after.system, why="asked"
                )
                expired.append(after)
        return tuple(expired)

    async def _pin(self, record: ImageRecord, *, pinned: bool) -> ImageRecord:
        step = partial(pin, days=self._days(record.system) or 0, pinned=pinned)
        return await self._change(record.key, step) or record

    async def _managed_by_id(
        self, system: str, image_id: ImageId, principal: Principal
    ) -> list[ImageRecord]:
        found: list[ImageRecord] = []
        after: str | None = None
        where = {"system": system, "image_id": image_id}
        while page := await self._catalog.images.find(where, after=after, limit=_PAGE):
            found += page
            after = page[-1].key
        return manageable(found, principal, f"image {image_id} on {system}")

    async def _change(
        self, key: str, step: Callable[[ImageRecord | None], Changed]
    ) -> ImageRecord | None:
        return await self._catalog.images.change(key, step, Deadline.after(self._timeout))
