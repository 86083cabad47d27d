"""Forgetting: what was used too long ago, and what is too much.

Every gateway does it now and then. Where several find too much at the same moment, they may forget
more than was too much, and never what is not the oldest.
"""

from datetime import timedelta
from typing import Final

from services.gateway.metrics import USAGE_FORGOTTEN
from shared.catalog.interface import Catalog
from shared.catalog.totals import Totals
from shared.models import utcnow

INTERVAL: Final = 3600.0
BATCH: Final = 500
_MOST_SYSTEMS: Final = 1000


class Retention:
    """Keeps the documents of usage within their age and number."""

    def __init__(self, catalog: Catalog, *, keep_days: int, max_records: int) -> None:
        self._usage = catalog.usage
        self._keep = timedelta(days=keep_days)
        self._most = max_records

    async def run(self) -> None:
        """In batches, so that others can write in between."""
        while await self._forget(self._keep, BATCH) == BATCH:
            continue
        counts = await self._usage.totals(Totals(by=("system",), limit=_MOST_SYSTEMS))
        excess = sum(total.count for total in counts) - self._most
        while excess > 0:
            forgotten = await self._forget(timedelta(), min(BATCH, excess))
            if not forgotten:
                return
            excess -= forgotten

    async def _forget(self, age: timedelta, limit: int) -> int:
        forgotten = await self._usage.forget(utcnow() - age, limit)
        USAGE_FORGOTTEN.inc(forgotten)
        return forgotten
