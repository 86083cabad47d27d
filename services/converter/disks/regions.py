"""Where a file has data and where holes, and the data itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.converter.disks.filesystem import Node, Piece
from services.converter.disks.volume import Volume
from shared.image.tar.writer import Regions

# With more parts than this, a file is read as if it had no holes.
_MAX_REGIONS: Final = 1 << 16
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Of one file."""

    pieces: list[Piece]
    regions: Regions
    """Without those between which there is no hole."""
    inline: bytes | None = None

    @property
    def stored(self) -> int:
        return sum(length for _, length in self.regions)


def laid_out(node: Node) -> Layout:
    size = node.facts.size
    inline = node.inline()
    if inline is not None:
        return Layout([], [(0, size)] if size else [], inline)
    pieces = []
    regions: Regions = []
    for piece in node.pieces():
        if piece.start >= size:
            break  # space that was set aside
        length = min(piece.length, size - piece.start)
        pieces.append(piece._replace(length=length))
        if regions and sum(regions[-1]) == piece.start:
            regions[-1] = (regions[-1][0], regions[-1][1] + length)
        else:
            regions.append((piece.start, length))
    if len(regions) > _MAX_REGIONS:
        regions = [(0, size)]
    return Layout(pieces, regions)


def data_of(layout: Layout, volume: Volume) -> Iterator[bytes]:
    """What is in the regions, one after the other."""
    if layout.inline is not None:
        yield layout.inline
        return
    pieces = iter(layout.pieces)
    piece = next(pieces, None)
    for start, length in layout.regions:
        at, end = start, start + length
        while piece is not None and piece.start < end:
            yield from _zeros(piece.start - at)
            for done in range(0, piece.length, _CHUNK):
                yield volume.read(piece.place + done, min(_CHUNK, piece.length - done))
            at = piece.start + piece.length
            piece = next(pieces, None)
        yield from _zeros(end - at)


def _zeros(count: int) -> Iterator[bytes]:
    for done in range(0, count, _CHUNK):
        yield bytes(min(_CHUNK, count - done))
