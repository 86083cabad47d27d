"""Where the data of each pack stand in an image, and what that makes of references to them."""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from shared.image import kinds
from shared.image.kinds import ALIGNMENT, aligned
from shared.image.merging.budget import CHECK_EVERY, Budget
from shared.image.merging.live import Layer, live_extents, live_fragments
from shared.image.planning.squeeze import OpenPack, Pieces, Squeezed, choose_pieces, digest_pieces
from shared.image.recipe import PackKey, Segment

_FRAGMENT = struct.Struct("<QII")


@dataclass(frozen=True, slots=True)
class Layout:
    """The data of an image. `live` has the bytes that its files refer to, by pack."""

    segments: tuple[Segment, ...]
    live: Mapping[PackKey, int]
    fragments: bytes
    end: int


def lay_out(
    layers: Mapping[PackKey, Layer],
    *,
    max_dead_share: float,
    open_pack: OpenPack,
    budget: Budget,
) -> Layout:
    """Place the packs behind each other, in pieces where too much is dead, and tell the layers.

    Every piece begins at a multiple of 4 KiB in its pack and in the image.
    """
    extents = {key: live_extents(layer, budget) for key, layer in layers.items()}
    lengths = {key: layer.index.data_length for key, layer in layers.items()}
    chosen = choose_pieces(extents, lengths, max_dead_share=max_dead_share)
    squeezed = [
        Squeezed(key, lengths[key], layers[key].index.data_sha256, pieces)
        for key, pieces in chosen.items()
        if pieces and sum(piece.length for piece in pieces) < lengths[key]
    ]
    digests = digest_pieces(squeezed, open_pack, budget)
    segments: list[Segment] = []
    fragments = bytearray()
    position = ALIGNMENT
    for key, layer in layers.items():
        offsets = []
        for number, piece in enumerate(chosen[key]):
            sha256 = digests[key][number] if key in digests else layer.index.data_sha256
            segments.append(
                Segment(
                    pack=key,
                    offset=position,
                    length=piece.length,
                    sha256=sha256,
                    source=piece.start,
                )
            )
            offsets.append(position)
            position = aligned(position + piece.length)
        _Mover(chosen[key], offsets, budget).move(layer, fragments)
    live = {key: sum(extent.length for extent in found) for key, found in extents.items()}
    return Layout(tuple(segments), live, bytes(fragments), position)


class _Mover:
    """From positions in a pack to positions in the image."""

    def __init__(self, pieces: Pieces, offsets: list[int], budget: Budget) -> None:
        self._pieces = pieces
        self._offsets = offsets
        self._starts = [piece.start for piece in pieces]
        self._budget = budget

    def move(self, layer: Layer, fragments: bytearray) -> None:
        """Set the layer's `starts` and `fragments`; its live fragments join those of the image."""
        index, block, none = layer.index, layer.index.block_size, kinds.NO_FRAGMENT
        # Where each of the pack's fragments is among the image's.
        numbers: array[int] = array("I", [none]) * (len(index.fragments) // 2)
        for row in live_fragments(layer):
            start, size = index.fragments[2 * row : 2 * row + 2]
            numbers[row] = len(fragments) // _FRAGMENT.size
            fragments += _FRAGMENT.pack(self._moved(start), size, 0)
        for at in range(0, len(index.file_sizes), CHECK_EVERY):
            self._budget.check()
            rows = slice(at, at + CHECK_EVERY)
            layer.fragments.extend(
                [none if row == none else numbers[row] for row in index.file_fragments[rows]]
            )
            columns = zip(index.file_sizes[rows], index.file_starts[rows], strict=True)
            layer.starts.extend(
                [self._moved(start) if size >= block else 0 for size, start in columns]
            )

    def _moved(self, position: int) -> int:
        number = bisect_right(self._starts, position) - 1
        if number < 0 or position >= self._pieces[number].end:
            # A dead file's, or that of a file which is nothing but holes.
            return 0
        return position + self._offsets[number] - self._starts[number]
