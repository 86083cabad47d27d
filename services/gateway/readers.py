"""Who may use an image on a system, over all records that stand for it there.

Two owners may have pulled the same image, which is one file. Its readers are those of both, and
everybody where one of its records is public. The distributor is told whenever that changes, with
a number that only grows, so that a late event cannot bring back who was taken off.
"""

from functools import partial

from services.gateway.access import arriving_readers, readers_of
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord, ReadersRecord
from shared.deadline import Deadline
from shared.errors import ConflictError
from shared.events import Readers, ReadersChanged
from shared.events.images import MAX_READERS
from shared.logging import get_logger
from shared.models import ImageId, utcnow

log = get_logger(__name__)

_PAGE = 200
_ATTEMPTS = 20


class ReadersBook:
    """Keeps the catalog's word on readers, and has it carried to the distributors."""

    def __init__(self, catalog: Catalog, timeout: float) -> None:
        self._catalog = catalog
        self._timeout = timeout

    async def tell(
        self,
        system: str,
        image_id: ImageId,
        *,
        beside: ImageRecord | None = None,
        anew: bool = False,
    ) -> None:
        """To be called after a change of a record that stands, or stood, for the image.

        `beside` is a record that is about to, with what is being placed for it. `anew` where the
        image was just placed: the distributor then knows only what that placement said.
        """
        key = f"{system}/{image_id}"
        for _ in range(_ATTEMPTS):
            # First the version, then the records: whoever writes has seen all that was there when
            # the one before wrote.
            known = await self._catalog.readers.get(key)
            found = await self._of_all(system, image_id, beside)
            if found is None:
                return  # nobody's any more: it is on its way out
            readers = found[0]
            if known is None and readers is None:
                return  # everybody's from the beginning
            if known is not None and known.readers == readers and not anew:
                return
            version = known.version if known else 0
            wanted = ReadersRecord(
                key=key,
                version=version,
                system=system,
                image_id=image_id,
                readers=readers,
                revision=_revision_after(known),
            )
            step = partial(_next, wanted=wanted)
            stored = await self._catalog.readers.change(key, step, Deadline.after(self._timeout))
            if stored is not None and (stored.version, stored.readers) == (version + 1, readers):
                log.info("readers_changed", system=system, image=image_id, everybody=not readers)
                return
        message = f"the readers of image {image_id} were changed by others again and again"
        raise ConflictError(message)

    async def _of_all(
        self, system: str, image_id: ImageId, beside: ImageRecord | None
    ) -> tuple[Readers | None] | None:
        """The readers of all records together; None if there is no record."""
        records = [] if beside is None else [beside]
        after: str | None = None
        where = {"image_id": image_id, "system": system}
        while page := await self._catalog.images.find(where, after=after, limit=_PAGE):
            records += (each for each in page if beside is None or each.key != beside.key)
            after = page[-1].key
        if not records:
            return None
        uids: set[int] = set()
        gids: set[int] = set()
        for record in records:
            readers = (arriving_readers if record is beside else readers_of)(record)
            if readers is None:
                return (None,)
            uids.update(readers.uids)
            gids.update(readers.gids)
        if max(len(uids), len(gids)) > MAX_READERS:
            log.warning("too_many_readers", system=system, image=image_id, limit=MAX_READERS)
        return (
            Readers(
                uids=tuple(sorted(uids)[:MAX_READERS]),
                gids=tuple(sorted(gids)[:MAX_READERS]),
            ),
        )


def _revision_after(known: ReadersRecord | None) -> int:
    """Like a clock: where the catalog was restored from a backup, distributors have heard more."""
    before = max(known.revision, known.version) if known else 0
    return max(before + 1, int(utcnow().timestamp() * 1000))


def _next(found: ReadersRecord | None, wanted: ReadersRecord) -> Change[ReadersRecord] | None:
    if (found.version if found else 0) != wanted.version:
        return None  # somebody was faster: what is wanted may be old
    event = ReadersChanged(
        correlation_id=wanted.image_id,
        system=wanted.system,
        image_id=wanted.image_id,
        readers=wanted.readers,
        revision=wanted.revision,
    )
    return Change(wanted, (event,))
