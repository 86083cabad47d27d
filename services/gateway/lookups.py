"""What images and pulls look like to users, made once for each version and kept in memory.

The directory says which records a principal may see; here is what they are shown, as the bytes of
the answer. Both are at most `feed.FRESH_SECONDS` behind the catalog, also in what other gateways
change: images, access, expiry. A record that is read on the way is decided upon once more, as it
was read. Memory is bounded by bytes; what was used longest ago is made again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from pydantic import BaseModel

from services.gateway.access import may_see, may_use
from services.gateway.auth.identity import Principal
from services.gateway.directory import Entry
from services.gateway.feed import ChangeFeed
from services.gateway.transitions import PullTarget
from services.gateway.views import image_view, pull_view
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord

MOST_BYTES: Final = 64 << 20
"""Of answers about images, and as much again of answers about pulls."""
_OVERHEAD: Final = 300
# Some milliseconds of reading between two moments at which others may go on.
_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Rendered:
    """A record of one version as users see it."""

    version: int
    pull_id: str
    body: bytes
    etag: str

    def is_of(self, entry: Entry) -> bool:
        """What was forgotten and pulled again has the same versions once more."""
        return (self.version, self.pull_id) == (entry.version, entry.pull_id)


class Renderings:
    """What is made of records, by their keys."""

    def __init__(
        self, make: Callable[[ImageRecord], BaseModel | None], most_bytes: int = MOST_BYTES
    ) -> None:
        self._make = make
        self._most = most_bytes
        self.size = 0
        self._kept: OrderedDict[str, Rendered] = OrderedDict()

    def get(self, entry: Entry) -> Rendered | None:
        found = self._kept.get(entry.key)
        if found is None or not found.is_of(entry):
            return None
        self._kept.move_to_end(entry.key)
        return found

    def __len__(self) -> int:
        return len(self._kept)

    def render(self, record: ImageRecord) -> Rendered | None:
        model = self._make(record)
        if model is None:
            return None
        body = model.model_dump_json().encode()
        made = Rendered(record.version, record.pull_id, body, etag_of(body))
        if (before := self._kept.pop(record.key, None)) is not None:
            self.size -= len(before.body) + _OVERHEAD
        self._kept[record.key] = made
        self.size += len(body) + _OVERHEAD
        while self.size > self._most and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self.size -= len(oldest.body) + _OVERHEAD
        return made


class Lookups:
    """Answers about images and pulls, for whoever may have them."""

    def __init__(self, catalog: Catalog, feed: ChangeFeed) -> None:
        self._images = catalog.images
        self._directory = feed.directory
        self._feed = feed
        self._views = Renderings(image_view)
        self._pulls = Renderings(pull_view)

    async def image(
        self, principal: Principal, target: PullTarget
    ) -> tuple[Entry, Rendered] | None:
        """What a reference stands for: one's own before the site's, before what others share."""
        if known := self.at_hand(principal, target):
            return known
        await self._feed.fresh()
        return await self._best(principal, self._named(target))

    async def by_id(
        self, principal: Principal, system: str, image_id: str
    ) -> tuple[Entry, Rendered] | None:
        await self._feed.fresh()
        return await self._best(principal, self._directory.of_image(system, image_id))

    async def record(self, principal: Principal, entry: Entry) -> ImageRecord | None:
        """All of it, as it is now; None if this one may not see it any more."""
        record = await self._images.get(entry.key)
        return record if record is not None and may_see(principal, record) else None

    async def standing(self, principal: Principal, target: PullTarget) -> ImageRecord | None:
        """Of a reference without a usable image: the record that tells why."""
        seen = [each for each in self._named(target) if may_see(principal, each)]
        for entry in sorted(seen, key=lambda each: _rank(principal, each)):
            return await self.record(principal, entry)
        return None

    async def page(
        self, principal: Principal, systems: Sequence[str], after: str | None, limit: int
    ) -> tuple[list[tuple[Entry, Rendered]], str | None]:
        """Usable images in the order of their keys; if there are more, the page's last key."""
        await self._feed.fresh()
        chosen: list[Entry] = []
        for entry in self._directory.usable(systems, principal, after):
            chosen.append(entry)
            if len(chosen) > limit:
                break
        last = chosen[limit - 1].key if len(chosen) > limit else None
        return await self._rendered(principal, self._views, chosen[:limit]), last

    async def usable(self, principal: Principal, systems: Sequence[str]) -> list[Entry]:
        """All usable images in the order of their keys, in outline."""
        await self._feed.fresh()
        return list(self._directory.usable(systems, principal, None))

    async def queued(self, principal: Principal, systems: Sequence[str]) -> list[Entry]:
        """What is under way, then what failed of late, the newest request first in each."""
        await self._feed.fresh()
        return self._directory.queue(systems, principal)

    async def pulls(
        self, principal: Principal, entries: Sequence[Entry]
    ) -> list[tuple[Entry, Rendered]]:
        """What users see of the pulls of these records."""
        return await self._rendered(principal, self._pulls, entries)

    async def pull_of(self, principal: Principal, key: str) -> Rendered | None:
        """The pull of one record, as far as it is there and may be seen."""
        entry = self._directory.get(key)
        if entry is None or not may_see(principal, entry):
            return None
        for _, made in await self.pulls(principal, [entry]):
            return made
        return None

    def at_hand(self, principal: Principal, target: PullTarget) -> tuple[Entry, Rendered] | None:
        """The usual case, for which lookups have to be fast: one record, and it was asked for."""
        named = self._named(target)
        if len(named) != 1 or not self._feed.is_fresh:
            return None
        [entry] = named
        made = self._views.get(entry)
        return None if made is None or not may_use(principal, entry) else (entry, made)

    def _named(self, target: PullTarget) -> Sequence[Entry]:
        return self._directory.named(target.system, target.itype, target.reference)

    async def _best(
        self, principal: Principal, entries: Iterable[Entry]
    ) -> tuple[Entry, Rendered] | None:
        usable = [each for each in entries if each.image_id and may_use(principal, each)]
        for entry in sorted(usable, key=lambda each: _rank(principal, each)):
            if found := self._views.get(entry):
                return entry, found
            if read := await self._rendered(principal, self._views, [entry]):
                return read[0]
        return None

    async def _rendered(
        self, principal: Principal, renderings: Renderings, entries: Sequence[Entry]
    ) -> list[tuple[Entry, Rendered]]:
        """The entries with what users see of them, as far as that still exists for this one."""
        found: dict[str, tuple[Entry, Rendered]] = {}
        missing: list[str] = []
        for entry in entries:
            if made := renderings.get(entry):
                found[entry.key] = entry, made
            else:
                missing.append(entry.key)
        for start in range(0, len(missing), _AT_ONCE):
            keys = missing[start : start + _AT_ONCE]
            for record in await self._images.get_many(keys):
                self._directory.note(record.key, record)
                read = self._directory.get(record.key)
                made = renderings.render(record)
                if read is not None and made is not None and may_see(principal, record):
                    found[record.key] = read, made
        return [found[entry.key] for entry in entries if entry.key in found]


def etag_of(content: bytes) -> str:
    """Weak: it stands for what is said, not for how it is sent."""
    return f'W/"{blake2b(content, digest_size=12).hexdigest()}"'


def _rank(principal: Principal, entry: Entry) -> tuple[int, str]:
    if entry.owner is None:
        return 1, entry.key
    return (0 if entry.owner == principal.uid else 2), entry.key
