"""What images are made of, and which packs they have in common: added up as images come and go.

An image of several references counts once, also where it stands on several systems. It costs some
work for each layer when a reference moves, and nothing when anybody asks.

Whether somebody's private image has a pack is nobody else's business: for all but admins, public
images alone count.
"""

from collections import Counter
from collections.abc import Sequence

from services.gateway.directory import Directory, Entry
from services.gateway.stock.made_of import MadeOf
from shared.api import SharingTotals
from shared.image.recipe import PackKey
from shared.models import ImageId


class PackLedger:
    """All images that can be used, and their packs."""

    def __init__(self, directory: Directory) -> None:
        self._references: Counter[ImageId] = Counter()
        self._public_references: Counter[ImageId] = Counter()
        self._images: dict[ImageId, tuple[int, MadeOf]] = {}
        """Their sizes, and what is in them."""
        self._lengths: dict[PackKey, int] = {}
        # Numbers only: some hundred thousand sets would make the garbage collector pause us.
        self._users: Counter[PackKey] = Counter()
        self._public_users: Counter[PackKey] = Counter()
        self._image_bytes = 0
        self._pack_bytes = 0
        self._layers = 0
        directory.listen(self._noted)

    @property
    def totals(self) -> SharingTotals:
        return SharingTotals(
            images=len(self._images),
            image_bytes=self._image_bytes,
            pack_bytes=self._pack_bytes,
            layers=self._layers,
            packs=len(self._lengths),
        )

    def others(self, image: str, packs: Sequence[PackKey]) -> tuple[int, ...]:
        """For each pack, how many other public images have it."""
        own = self._images[image][1].packs if image in self._public_references else ()
        return tuple(self._public_users[pack] - (pack in own) for pack in packs)

    def shared_bytes(self, entry: Entry, *, private_too: bool) -> int | None:
        """How much of an image is in packs that other images have; None: what it has is unknown."""
        if entry.image_id is None or entry.made is None or not entry.made.packs:
            return None
        users, references = self._public_users, self._public_references
        if private_too:
            users, references = self._users, self._references
        itself = 1 if entry.image_id in references else 0
        return sum(size for pack, size in entry.made.in_image if users[pack] > itself)

    def _noted(self, before: Entry | None, after: Entry) -> None:
        if before is not None and _standing(before) == _standing(after):
            return
        # The new one first: what both have in common stays.
        if after.image_id is not None and after.made is not None:
            self._add(after.image_id, after.size, after.made, public=not after.private)
        if before is not None and before.image_id is not None:
            self._take(before.image_id, public=not before.private)

    def _add(self, image: ImageId, size: int, made: MadeOf, *, public: bool) -> None:
        known = self._images.get(image)
        if known is None:
            self._make(image, size, made)
        elif made.packs and not known[1].packs:  # an earlier version did not say what is in it
            self._unmake(image)
            self._make(image, size, made)
        self._references[image] += 1
        if public:
            if image not in self._public_references:
                self._public_users.update(self._images[image][1].packs)
            self._public_references[image] += 1

    def _take(self, image: ImageId, *, public: bool) -> None:
        if public and _last(self._public_references, image):
            for pack in self._images[image][1].packs:
                _last(self._public_users, pack)
        if _last(self._references, image):
            self._unmake(image)

    def _make(self, image: ImageId, size: int, made: MadeOf) -> None:
        self._images[image] = (size, made)
        self._image_bytes += size
        self._layers += made.layers
        for pack, length in made.whole:
            self._users[pack] += 1
            if pack not in self._lengths:
                self._lengths[pack] = length
                self._pack_bytes += length
        if image in self._public_references:
            self._public_users.update(made.packs)

    def _unmake(self, image: ImageId) -> None:
        size, made = self._images.pop(image)
        self._image_bytes -= size
        self._layers -= made.layers
        for pack in made.packs:
            if _last(self._users, pack):
                self._pack_bytes -= self._lengths.pop(pack)


def _standing(entry: Entry) -> tuple[ImageId | None, bool, MadeOf | None]:
    return entry.image_id, entry.private, entry.made


def _last(counts: "Counter[str]", key: str) -> bool:
    """Count one less; whether none is left."""
    counts[key] -= 1
    if counts[key]:
        return False
    del counts[key]
    return True
