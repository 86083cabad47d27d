"""Who may see and change which record: the one place that decides it.

A private image is its owner's, and that of the users and groups that the owner named. For anybody
else it does not exist: no answer may differ from that for a reference nobody ever pulled. Nor are
others told what somebody asked for and a registry refused: the name alone may be a secret.
"""

from typing import Protocol

from services.gateway.auth.identity import Principal
from shared.catalog.records import ImageRecord
from shared.events import Readers


class Guarded(Protocol):
    """What decides about a record, or about its outline."""

    @property
    def owner(self) -> int | None: ...
    @property
    def private(self) -> bool: ...
    @property
    def allowed_uids(self) -> tuple[int, ...]: ...
    @property
    def allowed_gids(self) -> tuple[int, ...]: ...


class Shown(Guarded, Protocol):
    """What decides whether it is shown to whom only its reference, or nothing, is known."""

    @property
    def refused(self) -> bool: ...
    @property
    def requested_uid(self) -> int | None: ...


def may_use(principal: Principal, record: Guarded) -> bool:
    """Look it up, run it, follow its pull by the pull's id."""
    if not record.private or principal.admin:
        return True
    if principal.uid is None:
        return False
    return (
        principal.uid == record.owner
        or principal.uid in record.allowed_uids
        or not principal.gids.isdisjoint(record.allowed_gids)
    )


def may_see(principal: Principal, record: Shown) -> bool:
    """Hear of it without its pull's id: in lists, in the queue, by its reference."""
    if not may_use(principal, record):
        return False
    if not record.refused or record.private or principal.admin:
        return True
    return principal.uid is not None and principal.uid == record.requested_uid


def may_manage(principal: Principal, record: ImageRecord) -> bool:
    """Expire it, pin it, and say who else may use it: its owner, or who brought it for all."""
    if principal.admin:
        return True
    owner = record.brought_by if record.owner is None else record.owner
    return principal.uid is not None and principal.uid == owner


def listed(principal: Principal, record: Guarded) -> bool:
    """In lists: where an owner's image turned out public, the site's record stands for it."""
    return record.owner is None or (record.private and may_use(principal, record))


def readers_of(record: ImageRecord) -> Readers | None:
    """Who may use what the record stands for, its owner included; None: everybody."""
    if not record.private or record.owner is None:
        return None
    uids = dict.fromkeys((record.owner, *record.allowed_uids))
    return Readers(uids=tuple(uids), gids=record.allowed_gids)


def arriving_readers(record: ImageRecord) -> Readers | None:
    """The same of the image that is being placed for it."""
    return None if record.arrives_public else readers_of(record)


def named_by_owner(record: ImageRecord, readers: Readers | None) -> ImageRecord:
    """The record with those readers; unchanged if it has them, or is nobody's own."""
    if readers is None or record.owner is None:
        return record
    uids, gids = (tuple(sorted(set(ids))) for ids in (readers.uids, readers.gids))
    if (uids, gids) == (record.allowed_uids, record.allowed_gids):
        return record
    return record.but(allowed_uids=uids, allowed_gids=gids)
