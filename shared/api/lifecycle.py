"""How long images stay, and how much of them there may be."""

from typing import Annotated

from pydantic import Field

from shared.catalog.records import ImageType
from shared.models import Bytes, Instant, Strict, SystemName, Tolerant
from shared.states import State


class ReferenceView(Tolerant):
    """A reference that was pinned, unpinned or expired, as it is now."""

    system: SystemName
    type: ImageType
    reference: str
    owner: Annotated[int, Field(ge=0)] | None
    """Whose own it is; None: the site's."""
    state: State
    pinned: bool
    last_used: Instant
    expires_at: Instant | None
    """Unless it is used again, or pinned."""


class ReferencesView(Tolerant):
    """What was changed."""

    items: tuple[ReferenceView, ...]


class ExpireRequest(Strict):
    """POST /admin/expire. Without a system, all of them."""

    system: SystemName | None = None


class ExpiredView(Tolerant):
    """What a run over the images did."""

    seen: Bytes
    expired: Bytes
    held: Bytes
    """Would have expired, but jobs are using them."""
    items: tuple[ReferenceView, ...]
    """Those that expired, at most the first thousand."""


class QuotaLimits(Tolerant):
    """What a user may have on each system; None: as much as there is."""

    images: Bytes | None
    bytes: Bytes | None
    pulls: Bytes | None
    """Under way, on all systems together."""


class QuotaStanding(Tolerant):
    """What a user has on one system. Images that several references name count once."""

    system: SystemName
    images: Bytes
    bytes: Bytes
    system_bytes: Bytes
    """What all images of the system have together that you may know of; all, for operators."""
    system_limit: Bytes | None


class QuotaView(Tolerant):
    """GET /quota."""

    limits: QuotaLimits
    pulls: Bytes
    """Of yours, that are under way."""
    items: tuple[QuotaStanding, ...]
