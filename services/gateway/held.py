"""Which images the jobs that have not ended hold, as the catalog says it at this moment."""

import asyncio
import time
from collections import defaultdict

from shared.catalog.interface import Catalog
from shared.models import ImageId

_PAGE = 50


class Held:
    """Several who ask at once share one reading, which began after the last of them asked.

    An older one would not do: a job that was announced since then could lose its image.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._began: dict[str, float] = {}
        self._images: dict[str, frozenset[ImageId]] = {}
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def images(self, system: str, *, at_most_old: float = 0.0) -> frozenset[ImageId]:
        since = time.monotonic() - at_most_old
        async with self._reading[system]:
            if system not in self._images or self._began[system] < since:
                began = time.monotonic()
                self._images[system] = await self._read(system)
                self._began[system] = began
            return self._images[system]

    async def _read(self, system: str) -> frozenset[ImageId]:
        held: set[ImageId] = set()
        after: str | None = None
        where = {"system": system, "released_at": None}
        while page := await self._catalog.jobs.find(where, after=after, limit=_PAGE):
            # Asked of each: where an earlier version stored it, the index does not say.
            open_jobs = (job for job in page if job.released_at is None)
            held.update(image.image_id for job in open_jobs for image in job.images)
            after = page[-1].key
        return frozenset(held)
