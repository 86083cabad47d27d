"""Whether a reference need not be asked about at its registry: digests never, tags for a while."""

from datetime import datetime, timedelta

from services.gateway.work import made_alike
from shared.catalog.records import ImageRecord
from shared.imported import is_pinned
from shared.states import State


def is_fresh(wanted: ImageRecord, found: ImageRecord | None, now: datetime, seconds: float) -> bool:
    """Whether what was found is what is wanted, as its registry has confirmed of late."""
    if found is None or found.state is not State.READY or found.current is None:
        return False
    if not made_alike(found.current, wanted):
        return False
    if wanted.file is not None:
        return False  # only a look at the file tells, and files change at any moment
    if is_pinned(found.reference):
        return True
    return found.checked_at is not None and now - found.checked_at < timedelta(seconds=seconds)
