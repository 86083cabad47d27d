"""From packs to a recipe: lay the segments out, merge the layers, make the tables."""

import hashlib
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.image.budget import Budget, ImageLimits
from shared.image.codecs import BlockCodec
from shared.image.errors import ImageInvalidError
from shared.image.kinds import ALIGNMENT, aligned
from shared.image.pack import read_footer, read_index
from shared.image.pack_index import PackIndex
from shared.image.recipe import (
    ImageConfig,
    PackKey,
    PackOptions,
    Recipe,
    Segment,
    SourceDigests,
    Tables,
)
from shared.image.tables import build_tables
from shared.image.tree import Layer, Tree
from shared.models import ImageId

_FRAGMENT = struct.Struct("<QII")
_DEFAULT_LIMITS = ImageLimits()


def read_indexes(
    paths: Mapping[PackKey, Path],
    *,
    cancelled: threading.Event,
    limits: ImageLimits = _DEFAULT_LIMITS,
) -> dict[PackKey, PackIndex]:
    """The indexes of an image's packs, each once, unless together they are too much. Blocks."""
    budget = Budget(limits, cancelled)
    budget.add_index_bytes(sum(read_footer(path).index_size for path in paths.values()))
    found: dict[PackKey, PackIndex] = {}
    for key, path in paths.items():
        budget.check()
        found[key] = read_index(path, key)
        budget.add_nodes(len(found[key].names))
    return found


def plan_image(
    packs: Sequence[tuple[PackKey, PackIndex]],
    *,
    image_id: ImageId,
    options: PackOptions,
    config: ImageConfig,
    source: SourceDigests,
    codec: BlockCodec,
    cancelled: threading.Event,
    limits: ImageLimits = _DEFAULT_LIMITS,
) -> tuple[Recipe, bytes]:
    """The recipe of the image whose layers are `packs`, lowest first, and its tables.

    Blocks until done, some microseconds per file: run it in a thread. Setting `cancelled` ends it
    soon. The same packs always give the same bytes.
    """
    budget = Budget(limits, cancelled)
    segments: dict[PackKey, Segment] = {}
    layers: dict[PackKey, Layer] = {}
    fragments = bytearray()
    tree = Tree(budget)
    position = ALIGNMENT
    for key, index in packs:
        if (index.compression, index.block_size) != (options.compression, options.block_size):
            message = f"pack {key} was made with other blocks than the image is to have"
            raise ImageInvalidError(message)
        # A layer may occur twice: its data then need not.
        if key not in layers:
            layers[key] = Layer(index, position, len(fragments) // _FRAGMENT.size)
            fragments += _shifted_fragments(index, position)
            if index.data_length:
                segments[key] = Segment(
                    pack=key, offset=position, length=index.data_length, sha256=index.data_sha256
                )
                position = aligned(position + index.data_length)
        tree.apply(layers[key])
    tables = build_tables(
        tree.root,
        fragments=bytes(fragments),
        position=position,
        codec=codec,
        compression=options.compression,
        block_size=options.block_size,
        budget=budget,
    )
    recipe = Recipe(
        image_id=image_id,
        size=aligned(tables.superblock.bytes_used),
        inodes=tables.superblock.inodes,
        compression=options.compression,
        block_size=options.block_size,
        superblock=tables.superblock.pack().hex(),
        segments=tuple(segments.values()),
        tables=Tables(
            offset=position,
            length=len(tables.blob),
            sha256=hashlib.sha256(tables.blob).hexdigest(),
        ),
        config=config,
        source=source,
    )
    return recipe, tables.blob


def _shifted_fragments(index: PackIndex, offset: int) -> bytes:
    pairs = iter(index.fragments)
    return b"".join(
        _FRAGMENT.pack(offset + start, size, 0) for start, size in zip(pairs, pairs, strict=True)
    )
