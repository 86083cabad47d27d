"""Images that are READY: lookup and listing."""

import re
from collections.abc import Sequence

from services.gateway.transitions import PullTarget
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.errors import NotFoundError

_ID = re.compile(r"[0-9a-f]{64}")


class Images:
    """What a reference or an id stands for now."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def lookup(self, target: PullTarget) -> ImageRecord:
        """The record of a usable image, also while a newer pull of it is under way."""
        record = await self._catalog.images.get(target.key)
        if record is None or record.current is None:
            raise NotFoundError(
                f"{target.reference} is not READY on {target.system}"
                f"{_standing(record)}; pull it first: "
                f"dray pull --system {target.system} {target.reference}"
            )
        return record

    async def by_id(self, system: str, image_id: str) -> ImageRecord:
        found = await self._catalog.images.find({"image_id": image_id, "system": system}, limit=1)
        if found and found[0].current is not None:
            return found[0]
        raise NotFoundError(f"there is no READY image with the id {image_id} on {system}")

    async def page(
        self, systems: Sequence[str], after: str | None, limit: int
    ) -> tuple[list[ImageRecord], str | None]:
        """Usable images in the order of their keys, and where the next page begins."""
        where = {"system": list(systems)}
        ready: list[ImageRecord] = []
        while found := await self._catalog.images.find(where, after=after, limit=limit):
            for record in found:
                after = record.key
                if record.current is not None:
                    ready.append(record)
                    if len(ready) == limit:
                        return ready, after
        return ready, None


def is_image_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _standing(record: ImageRecord | None) -> str:
    if record is None:
        return ""
    if record.failure is not None:
        return f" (its last pull failed: {record.failure.message})"
    return f" (its pull is in state {record.state})"
