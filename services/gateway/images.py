"""What a reference or an id stands for, read from the catalog: for jobs, which must not be late."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from services.gateway.access import may_see, may_use
from services.gateway.auth.identity import Principal
from services.gateway.transitions import PullTarget
from shared.catalog.interface import Catalog, Where
from shared.catalog.records import ImageRecord
from shared.errors import NotFoundError
from shared.states import State

_ID = re.compile(r"[0-9a-f]{64}")
_PAGE: Final = 200


class Images:
    """Usable images, for whoever may have them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def lookup(self, principal: Principal, target: PullTarget) -> ImageRecord:
        """One's own before the site's, and that before what others share: nobody can change what
        a reference means to somebody else."""
        standing: ImageRecord | None = None
        owned = replace(target, owner=principal.uid)
        for key in dict.fromkeys((owned.key, target.key)):
            record = await self._catalog.images.get(key)
            if record is not None and record.current is not None:
                return record
            if standing is None and record is not None and may_see(principal, record):
                standing = record
        if principal.uid is not None:
            where = {"reference": target.reference, "system": target.system}
            async with aclosing(self.usable(principal, where)) as shared:
                async for record in shared:
                    return record
        raise not_ready(target, standing)

    async def by_id(self, principal: Principal, system: str, image_id: str) -> ImageRecord:
        where = {"image_id": image_id, "system": system}
        async with aclosing(self.usable(principal, where)) as found:
            async for record in found:
                return record
        raise NotFoundError(f"there is no READY image with the id {image_id} on {system}")

    async def usable(self, principal: Principal, where: Where) -> AsyncGenerator[ImageRecord, None]:
        """All that one may use, in the order of keys."""
        after: str | None = None
        while page := await self._catalog.images.find(where, after=after, limit=_PAGE):
            for record in page:
                if record.current is not None and may_use(principal, record):
                    yield record
            after = page[-1].key


def is_image_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def not_ready(target: PullTarget, record: ImageRecord | None) -> NotFoundError:
    """What to tell whoever looks a reference up for which there is nothing, and why."""
    how = f"pull it first: dray pull --system {target.system} {target.reference}"
    if target.itype == "custom":
        how = f"import it first: dray import --system {target.system} FILE {target.reference}"
    return NotFoundError(
        f"{target.reference} is not READY on {target.system}{_standing(record)}; {how}"
    )


def _standing(record: ImageRecord | None) -> str:
    if record is None:
        return ""
    if record.state in {State.EXPIRING, State.EXPIRED}:
        return " (it was removed or has expired)"
    if record.failure is not None:
        return f" (its last pull failed: {record.failure.message})"
    return f" (its pull is in state {record.state})"
