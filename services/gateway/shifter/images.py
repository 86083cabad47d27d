"""READY images as the wire shows them, made once for each version of a record.

`lookups` decides which records somebody may see and which of several a reference means. What the
wire tells of one stays in memory, which is bounded; what was used longest ago is made anew.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.gateway.access import may_use
from services.gateway.auth.identity import Principal
from services.gateway.directory import Entry
from services.gateway.lookups import Lookups
from services.gateway.shifter.answers import encoded
from services.gateway.shifter.view import WireRecord, ready_view, short
from services.gateway.transitions import PullTarget
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord

MOST_BYTES: Final = 64 << 20
_MEMORY: Final = 4
"""What a record takes in memory for each byte that it has on the wire, or a little less."""
# Some milliseconds of work between two moments at which others may go on.
_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class _Made:
    version: int
    pull_id: str
    record: WireRecord
    size: int

    def is_of(self, entry: Entry) -> bool:
        """A reference that was forgotten and pulled again has its versions once more."""
        return (self.version, self.pull_id) == (entry.version, entry.pull_id)


class WireImages:
    """Answers about images, for whoever may have them."""

    def __init__(self, catalog: Catalog, lookups: Lookups, most_bytes: int = MOST_BYTES) -> None:
        self._images = catalog.images
        self._lookups = lookups
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, _Made] = OrderedDict()

    async def named(
        self, principal: Principal, target: PullTarget
    ) -> tuple[Entry, WireRecord] | None:
        found = await self._lookups.image(principal, target)
        return None if found is None else await self._shown(principal, found[0])

    def is_of(self, entry: Entry) -> bool:
        """Whether what is shown of a record is made of this very version."""
        made = self._kept.get(entry.key)
        return made is not None and made.is_of(entry)

    async def by_id(
        self, principal: Principal, system: str, image_id: str
    ) -> tuple[Entry, WireRecord] | None:
        found = await self._lookups.by_id(principal, system, image_id)
        return None if found is None else await self._shown(principal, found[0])

    async def listed(self, principal: Principal, systems: Sequence[str]) -> bytes:
        """All of them. References that stand for one image, for the same people, are its tags."""
        tags: dict[tuple[object, ...], list[str]] = {}
        shown: list[Entry] = []
        for entry in await self._lookups.usable(principal, systems):
            alike = tags.setdefault(_what(entry), [])
            if not alike:
                shown.append(entry)
            alike.append(short(entry.reference))
        parts: list[bytes] = []
        for start in range(0, len(shown), _AT_ONCE):
            some = shown[start : start + _AT_ONCE]
            records = await self._records(principal, some)
            parts += (
                encoded({**records[entry.key], "tag": tags[_what(entry)]})
                for entry in some
                if entry.key in records
            )
            await asyncio.sleep(0)
        return b'{"list": [' + b", ".join(parts) + b"]}"

    async def _shown(self, principal: Principal, entry: Entry) -> tuple[Entry, WireRecord] | None:
        found = await self._records(principal, [entry])
        return (entry, found[entry.key]) if entry.key in found else None

    async def _records(
        self, principal: Principal, entries: Sequence[Entry]
    ) -> dict[str, WireRecord]:
        """By key, as far as they are still there for this one."""
        found: dict[str, WireRecord] = {}
        missing: list[str] = []
        for entry in entries:
            made = self._kept.get(entry.key)
            if made is not None and made.is_of(entry):
                self._kept.move_to_end(entry.key)
                found[entry.key] = made.record
            else:
                missing.append(entry.key)
        if missing:
            for record in await self._images.get_many(missing):
                if record.current is not None and may_use(principal, record):
                    found[record.key] = self._keep(record)
        return found

    def _keep(self, found: ImageRecord) -> WireRecord:
        if (before := self._kept.pop(found.key, None)) is not None:
            self._bytes -= before.size
        record = ready_view(found)
        size = _MEMORY * len(encoded(record))
        self._kept[found.key] = _Made(found.version, found.pull_id, record, size)
        self._bytes += size
        while self._bytes > self._most:
            self._bytes -= self._kept.popitem(last=False)[1].size
        return record


def _what(entry: Entry) -> tuple[object, ...]:
    """The same for references that a client cannot tell apart but by their names."""
    readers = (entry.owner, entry.allowed_uids, entry.allowed_gids) if entry.private else ()
    return entry.system, entry.itype, entry.image_id, readers
