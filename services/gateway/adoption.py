"""What an owner's pull means for others, once its registry has said who may have the image.

An image that the registry gives to everybody becomes the site's: its public record gets what the
owner's has. A private one stays its owner's.
"""

from datetime import datetime
from functools import partial

from services.gateway.expiring import dismissed, dropped
from services.gateway.readers import ReadersBook
from services.gateway.steps import first_step, moved
from services.gateway.transitions import Changed
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord, image_key
from shared.deadline import Deadline
from shared.events import ImagePlaced
from shared.models import utcnow
from shared.states import State


class Adoption:
    """Follows what pulls come to, for what lies beyond their own records."""

    def __init__(self, catalog: Catalog, readers: ReadersBook, timeout: float) -> None:
        self._catalog = catalog
        self._readers = readers
        self._timeout = timeout

    async def readers_named(self, record: ImageRecord) -> None:
        """The owner of this record has named others."""
        if record.owner is not None and record.image_id is not None:
            await self._readers.tell(record.system, record.image_id)

    async def placing(self, record: ImageRecord | None, event: ImagePlaced) -> None:
        """Before the record says READY: whoever sees that may use the image."""
        if record is None or record.state is not State.TRANSFER:
            return
        if record.attempt == event.attempt:
            await self._readers.tell(event.system, event.image_id, beside=record, anew=True)

    async def ended(self, before: ImageRecord | None, record: ImageRecord | None) -> None:
        """After a pull's good end. Safe to repeat."""
        if record is None or record.state is not State.READY or record.current is None:
            return
        if record.owner is not None and not record.private:
            key = image_key(record.system, record.itype, record.reference)
            step = partial(adopted, given=record, now=utcnow())
            public = await self._catalog.images.change(key, step, Deadline.after(self._timeout))
            if public is not None and public.image_id == record.image_id:
                await self._check_given(record, public)
        if record.owner is not None:
            await self._readers.tell(record.system, record.current.image_id)
        if before is not None and before.image_id not in {None, record.image_id}:
            await self._readers.tell(record.system, before.image_id)

    async def _check_given(self, given: ImageRecord, public: ImageRecord) -> None:
        """The public record stands for an image that was not placed for it.

        Whoever removes it looks at the records first. If the owner's had expired before that, the
        look may have been before the public one had it: then it must not keep it.
        """
        found = await self._catalog.images.get(given.key)
        if found is not None and found.image_id == given.image_id:
            return

        def step(now: ImageRecord | None) -> Changed:
            if now is None or now.version != public.version or now.state.in_flight:
                return None
            return dismissed(now, utcnow())

        await self._catalog.images.change(public.key, step, Deadline.after(self._timeout))


def adopted(public: ImageRecord | None, given: ImageRecord, now: datetime) -> Changed:
    """The public record with what an owner's has; None if it has it, or something newer."""
    current = given.current
    if current is None or given.private:
        return None
    if public is None:
        key = image_key(given.system, given.itype, given.reference)
        mine = {"owner": None, "allowed_uids": (), "allowed_gids": (), "awaited_by": ()}
        fresh = {"attempt": 1, "tries": 1, "pinned": False, "pull_id": f"{given.pull_id}-public"}
        lasting = {"last_pull": now, "due_at": given.expires_at}
        steps = first_step(given.state, 1, now)
        return Change(given.but(key=key, version=0, steps=steps, **lasting, **mine, **fresh))
    if public.state.in_flight:
        return None  # it will find out by itself
    known = public.current
    if known is not None and (
        known.image_id == current.image_id or known.ready_at >= current.ready_at
    ):
        return None
    after = moved(
        public,
        State.READY,
        now,
        current=current,
        image_id=current.image_id,
        leaving=None,
        failure=None,
        expires_at=given.expires_at,
        due_at=None if public.pinned else given.expires_at,
        last_pull=now,
        checked_at=given.checked_at,
    )
    return Change(after, dropped(public, after))
