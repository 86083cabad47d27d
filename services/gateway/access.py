"""Who may see and change which record: the one place that decides it.

A private image is its owner's, and that of the users and groups that the owner named. For anybody
else it does not exist: no answer may differ from that for a reference nobody ever pulled.
"""

from services.gateway.auth.identity import Principal
from shared.catalog.records import ImageRecord


def may_use(principal: Principal, record: ImageRecord) -> bool:
    """See it in lists, look it up, run it, follow its pull."""
    if not record.private or principal.admin:
        return True
    if principal.uid is None:
        return False
    return (
        principal.uid == record.owner
        or principal.uid in record.allowed_uids
        or not principal.gids.isdisjoint(record.allowed_gids)
    )


def may_manage(principal: Principal, record: ImageRecord) -> bool:
    """Expire it, pin it, and say who else may use it: its owner, or who pulled it for all."""
    if principal.admin:
        return True
    owner = record.requested_uid if record.owner is None else record.owner
    return principal.uid is not None and principal.uid == owner
