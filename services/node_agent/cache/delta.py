"""What of a new image this node has already, in other images: by pack and range, not by name.

A segment names its pack and where in it its bytes begin. So where yesterday's image and today's
show different parts of one layer, what they share is still known, whatever lies between.
"""

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, Final, Self

from services.node_agent.cache.shelf import Copy, Shelf
from shared.image.making.parallel import Region
from shared.image.recipe import PackKey, Recipe, Segment
from shared.models import ImageId

MOST_DONORS: Final = 8
"""Images that are looked into; more would only bring more of the same."""


@dataclass(frozen=True, slots=True)
class Donor:
    """An image of this node that has parts of another one."""

    image_id: ImageId
    file: BinaryIO
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a region, in its order. Without a donor: only the shared file has it."""

    length: int
    donor: Donor | None = None
    offset: int = 0
    """In the donor's file."""


@dataclass(frozen=True, slots=True)
class _Range:
    """A part of a pack that a donor has."""

    start: int
    end: int
    donor: Donor
    offset: int


class Holdings:
    """Ranges of packs, and whole regions, that donors have."""

    def __init__(
        self, ranges: Mapping[PackKey, Sequence[_Range]], regions: Mapping[str, _Range]
    ) -> None:
        self._ranges = ranges
        self._regions = regions

    @classmethod
    def of(cls, donors: Iterable[Donor]) -> Self:
        ranges: dict[PackKey, list[_Range]] = {}
        regions: dict[str, _Range] = {}
        for donor in donors:
            for region in donor.recipe.regions:
                whole = _Range(0, region.length, donor, region.offset)
                regions.setdefault(region.sha256, whole)
                if isinstance(region, Segment):
                    end = region.source + region.length
                    found = _Range(region.source, end, donor, region.offset)
                    ranges.setdefault(region.pack, []).append(found)
        return cls({pack: _disjoint(each) for pack, each in ranges.items()}, regions)

    def parts(self, region: Region) -> Iterator[Part]:
        """The region from its beginning to its end."""
        whole = self._regions.get(region.sha256)
        if whole is not None and whole.end == region.length:
            yield Part(region.length, whole.donor, whole.offset)
        elif isinstance(region, Segment):
            yield from self._pieces(region)
        else:
            yield Part(region.length)

    def _pieces(self, segment: Segment) -> Iterator[Part]:
        at, end = segment.source, segment.source + segment.length
        ranges = self._ranges.get(segment.pack, ())
        first = bisect.bisect_right(ranges, at, key=lambda each: each.end)
        for each in ranges[first:]:
            if each.start >= end:
                break
            if at < each.start:
                yield Part(each.start - at)
                at = each.start
            length = min(each.end, end) - at
            yield Part(length, each.donor, each.offset + at - each.start)
            at += length
        if at < end:
            yield Part(end - at)


def _disjoint(ranges: list[_Range]) -> list[_Range]:
    """In order, each byte of the pack once."""
    found: list[_Range] = []
    covered = 0
    for each in sorted(ranges, key=lambda each: (each.start, -each.end)):
        if each.end > covered:
            start = max(each.start, covered)
            found.append(_Range(start, each.end, each.donor, each.offset + start - each.start))
            covered = each.end
    return found


@contextmanager
def donors_for(recipe: Recipe, shelf: Shelf) -> Iterator[Holdings]:
    """What the cache has of this image; its files stay open until the end. Blocks."""
    packs = {segment.pack for segment in recipe.segments}

    def common(copy: Copy) -> int:
        return len(packs & copy.packs)

    candidates = [copy for copy in shelf.copies if copy.sound and common(copy)]
    candidates.sort(key=common, reverse=True)
    with ExitStack() as files:
        donors = []
        for copy in candidates[:MOST_DONORS]:
            card = copy.card()
            if card is not None:
                with suppress(OSError):  # evicted meanwhile
                    file = files.enter_context(copy.path.open("rb"))
                    donors.append(Donor(copy.image_id, file, card.recipe))
        yield Holdings.of(donors)
