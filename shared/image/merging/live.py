"""What of its packs an image still shows: the data that the files left in its tree refer to.

What upper layers overwrite or delete stays in the lower layer's pack, as dead data.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

from shared.image import kinds
from shared.image.merging.budget import Budget
from shared.image.packs.index import PackIndex


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes from `start` up to `end` of a pack's data region."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


class Layer:
    """A pack's index, and what becomes known of its entries while an image is planned."""

    __slots__ = ("fragments", "index", "links", "live", "numbers", "starts")

    def __init__(self, index: PackIndex) -> None:
        self.index = index
        # Per entry, its inode's number and how many names it has; 0 if the tree does not show it.
        self.numbers: array[int] = array("I", [0]) * len(index.names)
        self.links: array[int] = array("I", [0]) * len(index.names)
        # One byte per file: 1 if the tree shows it. Set by whoever walks the finished tree.
        self.live = bytearray(len(index.file_sizes))
        # Per file, where its blocks start in the image and which of the image's fragments it
        # has. Known when the packs have been laid out, and meaningless for dead files.
        self.starts: array[int] = array("Q")
        self.fragments: array[int] = array("I")

    def again(self) -> "Layer":
        """The same layer in another place: other inodes with the same data."""
        other = Layer(self.index)
        other.live, other.starts, other.fragments = self.live, self.starts, self.fragments
        return other


def live_extents(layer: Layer, budget: Budget) -> tuple[Extent, ...]:
    """The live parts of a pack's data region, in order; parts that touch each other are one."""
    index = layer.index
    if 0 not in layer.live:
        return (Extent(0, index.data_length),) if index.data_length else ()
    return tuple(_merged(sorted(_ranges(layer, budget))))


def live_fragments(layer: Layer) -> list[int]:
    """The rows of the pack's fragments that hold the end of at least one live file."""
    if 0 not in layer.live:
        return list(range(len(layer.index.fragments) // 2))
    return sorted(set(compress(layer.index.file_fragments, layer.live)) - {kinds.NO_FRAGMENT})


def _ranges(layer: Layer, budget: Budget) -> Iterator[tuple[int, int]]:
    index, block = layer.index, layer.index.block_size
    files = compress(enumerate(index.file_sizes), layer.live)
    for file in [file for file, size in budget.watched(files) if size >= block]:
        sizes = index.file_block_sizes(file)
        start = index.file_starts[file]
        yield start, start + sum([size & kinds.BLOCK_SIZE_MASK for size in sizes])
    for fragment in live_fragments(layer):
        start, size = index.fragments[2 * fragment : 2 * fragment + 2]
        yield start, start + (size & kinds.BLOCK_SIZE_MASK)


def _merged(ranges: list[tuple[int, int]]) -> Iterator[Extent]:
    """Ranges overlap where files have their blocks in common."""
    begin = stop = 0
    for start, end in ranges:
        if start > stop:
            if stop > begin:
                yield Extent(begin, stop)
            begin = start
        stop = max(stop, end)
    if stop > begin:
        yield Extent(begin, stop)
