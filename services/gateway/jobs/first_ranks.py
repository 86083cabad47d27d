"""When the first process of a job went into an image, as its nodes tell with their heartbeats.

All nodes of a job tell it once each. What is not earlier than what this gateway knows is forgotten
at once; so ten thousand nodes make a handful of writes, and the earliest wins whoever hears it.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.gateway.batches import Batches
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import JobRecord
from shared.errors import DrayError
from shared.events import NodeHeartbeat
from shared.logging import get_logger
from shared.models import utcnow

log = get_logger(__name__)

MOST_KNOWN: Final = 10_000
KNOWN_SECONDS: Final = 5.0
"""Then the catalog is asked again: schedulers use ids of jobs again."""
_CLOCKS: Final = timedelta(seconds=2)
"""By so much gateways' clocks may differ. What came before is of an earlier job with this id."""


class FirstRanks:
    """Those that this gateway hears of."""

    def __init__(self, catalog: Catalog, timeout: float) -> None:
        self._records: Batches[JobRecord] = Batches(catalog.jobs, timeout)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def stop(self) -> None:
        await self._records.stop()

    async def heard(self, event: NodeHeartbeat) -> None:
        """By this gateway's clock: the node says only how long ago it was."""
        now = utcnow()
        for entered in event.entered:
            at = now - timedelta(seconds=entered.seconds_ago)
            known = self._known.get(entered.job_id)
            if known is None or not known.covers(at):
                await self._note(entered.job_id, at)

    async def _note(self, job_id: str, at: datetime) -> None:
        first: datetime | None = None

        def step(found: JobRecord | None) -> Change[JobRecord] | None:
            nonlocal first
            change = _earliest(found, at)
            after = found if change is None else change.record
            first = None if after is None else after.first_rank_at
            return change

        self._known[job_id] = _Known(at, time.monotonic())
        self._known.move_to_end(job_id)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        try:
            await self._records.change(job_id, step)
        except DrayError as exc:  # other nodes of the job tell as much
            first = None
            log.info("first_rank_not_noted", job=job_id, code=exc.code)
        self._known.pop(job_id, None)
        if first is not None:
            self._known[job_id] = _Known(first, time.monotonic())


@dataclass(frozen=True, slots=True)
class _Known:
    """Of one job: the earliest that is written down, as the catalog said then."""

    at: datetime
    asked: float

    def covers(self, at: datetime) -> bool:
        return self.at <= at and time.monotonic() - self.asked < KNOWN_SECONDS


def _earliest(found: JobRecord | None, at: datetime) -> Change[JobRecord] | None:
    if found is None or found.reservation or at < found.announced_at - _CLOCKS:
        return None
    at = max(at, found.announced_at)
    if found.first_rank_at is not None and found.first_rank_at <= at:
        return None
    return Change(found.but(first_rank_at=at))
