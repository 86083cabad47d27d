"""What was used, by whom and when."""

from typing import Literal

from shared.events import Uid
from shared.models import Bytes, ImageId, Instant, SystemName, Tolerant

UsageBy = Literal["image", "user", "hour", "day"]


class UsageView(Tolerant):
    """One line of a report: what it is about (the rest is null), and how often."""

    system: SystemName | None = None
    reference: str | None = None
    image_id: ImageId | None = None
    user: str | None = None
    uid: Uid | None = None
    period: str | None = None
    """An hour, as 2026-11-21T09, or a day, as 2026-11-21; in UTC."""
    lookups: Bytes
    pulls: Bytes
    jobs: Bytes
    last: Instant
    """When any of them was last."""


class UsagePage(Tolerant):
    """GET /usage: from the hour of `since` to before `until`.

    Images and users come by how much they were used, hours and days in their order. `next` is the
    `after` of the next page; None: this was the last.
    """

    by: UsageBy
    since: Instant
    until: Instant
    items: tuple[UsageView, ...]
    next: str | None
