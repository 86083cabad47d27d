"""Whether a silent worker is really silent, by this gateway's own clock.

Due times are written by whichever gateway changed the record last, and clocks differ. So a worker
that has begun is given up only when its record has stayed the same for a while before our own eyes.
"""

import time
from collections.abc import Sequence

from shared.catalog.records import ImageRecord


class Watch:
    """Remembers since when each overdue record has been as it is."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[int, float]] = {}

    def settled(self, due: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Those of the overdue records that may be acted on now."""
        now = time.monotonic()
        seen: dict[str, tuple[int, float]] = {}
        settled = []
        for record in due:
            version, since = self._seen.get(record.key, (record.version, now))
            if version != record.version:
                since = now
            seen[record.key] = (record.version, since)
            if not record.begun or not record.state.in_flight or now - since >= self._seconds:
                settled.append(record)
        self._seen = seen
        return settled
