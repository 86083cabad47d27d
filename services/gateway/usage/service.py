"""Usage as the gateway's other parts know it: they say what was used, or ask."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from services.gateway.auth.identity import Principal
from services.gateway.durations import outcome_of
from services.gateway.expiring import Usable
from services.gateway.metrics import PULLS
from services.gateway.usage.counting import Counting, Somebody, UsageKind, UsedImage, User
from services.gateway.usage.report import Report, Reports
from services.gateway.usage.retention import INTERVAL, Retention
from shared.api import UsageView
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord, UsageRecord
from shared.deadline import Deadline
from shared.settings.usage import UsageSettings
from shared.states import State
from shared.tasks import cancel_all, repeat


class LastingImage(UsedImage, Usable, Protocol):
    """An image's record, or its outline, with what says when it was used last."""


class Usage:
    """Who uses which image, when."""

    def __init__(
        self,
        catalog: Catalog,
        rules: UsageSettings,
        timeout: float,
        *,
        tell: Callable[[LastingImage], None],
    ) -> None:
        """`tell` hears of each use, too: what is used does not expire."""
        self._tell = tell
        self._counting = Counting(catalog, interval=rules.flush_interval, timeout=timeout)
        self._reports = Reports(catalog)
        self._retention = Retention(
            catalog, keep_days=rules.keep_days, max_records=rules.max_records
        )
        self._forgetting: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._counting.start()
        self._forgetting = asyncio.create_task(
            repeat("usage-retention", INTERVAL, self._retention.run), name="usage-retention"
        )

    async def stop(self, deadline: Deadline) -> None:
        """Before the catalog is closed: what was counted is stored."""
        if self._forgetting is not None:
            await cancel_all(self._forgetting)
        await self._counting.stop(deadline)

    def note(self, kind: UsageKind, who: Somebody, image: LastingImage) -> None:
        """Count one use of an image; cheap enough for every lookup, and never fails."""
        if self._counting.note(kind, who, image):
            self._tell(image)

    def pull_changed(self, before: ImageRecord | None, after: ImageRecord) -> None:
        """Count a pull when it has ended, for whoever asked for it first."""
        if before is None or not before.state.in_flight or after.state.in_flight:
            return
        PULLS.labels(outcome_of(before, after)).inc()
        if after.state is State.READY:
            self.note("pulls", User(after.requested_by, after.requested_uid), after)

    def job_announced(self, who: Somebody, images: Sequence[ImageRecord]) -> None:
        for image in images:
            self.note("jobs", who, image)

    async def report(
        self, principal: Principal, wanted: Report, offset: int, limit: int
    ) -> tuple[list[UsageView], bool]:
        return await self._reports.page(principal, wanted, offset, limit)

    async def latest(self, system: str, limit: int, principal: Principal) -> list[UsageRecord]:
        return await self._reports.latest(system, limit, principal)
