"""The history as charts want it: a list for each figure, at equal distances, with its gaps."""

import asyncio
import json
import time
from datetime import datetime, timedelta
from typing import Final

from services.gateway.past.history import COUNTED, STEP, STOOD, ending, key_of
from shared.catalog.interface import Catalog
from shared.models import Tolerant, utcnow

FRESH_SECONDS: Final = 5.0
MOST_KEPT: Final = 8
"""Answers: some hundred KiB each."""
# Some milliseconds of reading between two moments at which others may go on.
_PAGE: Final = 200


class Minute(Tolerant):
    """What is read of one minute."""

    stood: dict[str, float]
    counted: dict[str, dict[str, int]]

    def value(self, name: str) -> float | None:
        if name in COUNTED:
            return float(sum(part.get(name, 0) for part in self.counted.values()))
        return self.stood.get(name)


class Charts:
    """Answers about the last hours, as JSON of a HistoryView, made once for all who ask."""

    def __init__(self, catalog: Catalog) -> None:
        self._history = catalog.history
        self._reading = asyncio.Lock()
        self._kept: dict[int, tuple[float, bytes]] = {}

    async def body(self, hours: int) -> bytes:
        async with self._reading:
            made_at, body = self._kept.get(hours, (0.0, b""))
            now = time.monotonic()
            if not body or now - made_at >= FRESH_SECONDS:
                last = ending(utcnow()) - STEP
                body = await self._made(last - timedelta(hours=hours), last)
                self._kept.pop(hours, None)
                self._kept[hours] = (now, body)
                if len(self._kept) > MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
            return body

    async def _made(self, begin: datetime, last: datetime) -> bytes:
        """Of the minutes that ended after `begin`. In steps: of two days it is a long text."""
        found = await self._read(key_of(begin), key_of(last))
        count = int((last - begin) / STEP)
        keys = [key_of(begin + STEP * number) for number in range(1, count + 1)]
        await asyncio.sleep(0)
        minutes = [found.get(key) for key in keys]
        series: list[str] = []
        for name in (*STOOD, *COUNTED):
            values = [None if each is None else each.value(name) for each in minutes]
            series.append(f"{json.dumps(name)}:{json.dumps(values)}")
            await asyncio.sleep(0)
        told = json.dumps([f"{key}:00Z" for key in keys])
        step = json.dumps(STEP.total_seconds())
        body = f'{{"step_seconds":{step},"times":{told},"series":{{{",".join(series)}}}}}'
        return body.encode()

    async def _read(self, after: str, last: str) -> dict[str, Minute]:
        found: dict[str, Minute] = {}
        while page := await self._history.outlines(Minute, after=after, limit=_PAGE):
            found.update(page)
            after = page[-1][0]
            if after >= last:
                break
        return found
