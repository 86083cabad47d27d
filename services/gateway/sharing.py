"""Which images have a layer's pack in common: an index in memory over the catalog's images.

The catalog can be searched by fields of one value, and reading ten thousand images for one answer
takes too long. So what this process changes is noted at once, and what other gateways changed is
read again when somebody asks and the last reading is a minute old.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from sys import intern
from typing import Final

from shared.catalog.interface import Catalog, PendingEvent
from shared.catalog.records import ImageRecord, Record
from shared.image.recipe import PackKey
from shared.models import ImageId

FRESH_SECONDS: Final = 60.0
# Some milliseconds of reading between two moments at which others may go on.
_PAGE: Final = 50


class Sharing:
    """Counts images, not references: two tags on one content are one image."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        # Of each record the version that was seen last, and the image that it stands for.
        self._seen: dict[str, tuple[int, ImageId | None]] = {}
        self._records: Counter[ImageId] = Counter()
        self._packs: dict[ImageId, tuple[PackKey, ...]] = {}
        # Numbers only: some hundred thousand sets would make the garbage collector pause us.
        self._users: Counter[PackKey] = Counter()
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        catalog.listen(self._changed)

    async def others(self, image: ImageId, packs: Sequence[PackKey]) -> tuple[int, ...]:
        """For each pack, how many other images have it too."""
        await self._refresh()
        own = self._packs.get(image, ())
        return tuple(self._users[pack] - (pack in own) for pack in packs)

    async def _refresh(self) -> None:
        async with self._reading:
            now = time.monotonic()
            if self._read_at is not None and now - self._read_at < FRESH_SECONDS:
                return
            after: str | None = None
            while found := await self._catalog.images.find({}, after=after, limit=_PAGE):
                for record in found:
                    self.note(record)
                after = found[-1].key
            self._read_at = now

    def _changed(self, record: Record, _: tuple[PendingEvent, ...]) -> None:
        if isinstance(record, ImageRecord):
            self.note(record)

    def note(self, record: ImageRecord) -> None:
        """What a record stands for, unless a later version of it has been seen."""
        version, before = self._seen.get(record.key, (-1, None))
        if record.version < version:
            return
        current = record.current
        # A private image is counted for nobody: its number alone would tell that it is there.
        shown = current is not None and not record.private
        image = intern(current.image_id) if current is not None and shown else None
        self._seen[record.key] = (record.version, image)
        if image == before:
            return
        if before is not None:
            self._forget(before)
        if current is not None and image is not None:
            self._records[image] += 1
            if image not in self._packs:
                # A layer may occur twice in an image.
                packs = dict.fromkeys(intern(share.pack) for share in current.shares)
                self._packs[image] = tuple(packs)
                self._users.update(self._packs[image])

    def _forget(self, image: ImageId) -> None:
        self._records[image] -= 1
        if self._records[image]:
            return
        del self._records[image]
        for pack in self._packs.pop(image):
            self._users[pack] -= 1
            if not self._users[pack]:
                del self._users[pack]
