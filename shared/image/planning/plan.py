"""From packs to a recipe: merge the layers, lay out their data, make the tables."""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.image.codecs import BlockCodec
from shared.image.description import Description, UsedOptions, encode
from shared.image.errors import ImageInvalidError
from shared.image.merging.budget import Budget, ImageLimits
from shared.image.merging.live import Layer
from shared.image.merging.numbering import number_nodes
from shared.image.merging.tree import Tree
from shared.image.packs.index import PackIndex
from shared.image.packs.pack import read_footer, read_index
from shared.image.planning.layout import lay_out
from shared.image.planning.squeeze import OpenPack
from shared.image.recipe import (
    ImageConfig,
    ImageLayer,
    PackKey,
    PackOptions,
    Recipe,
    SourceDigests,
    Tables,
)
from shared.image.squashfs.tables import build_tables

_DEFAULT_LIMITS = ImageLimits()
_NO_ID = "0" * 64


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
    options: PackOptions,
    max_dead_share: float,
    config: ImageConfig,
    source: SourceDigests,
    codec: BlockCodec,
    open_pack: OpenPack,
    cancelled: threading.Event,
    limits: ImageLimits = _DEFAULT_LIMITS,
) -> tuple[Recipe, bytes]:
    """The recipe of the image whose layers are `packs`, lowest first, and its tables.

    Where more than `max_dead_share` of the packs' data is dead, those that are full of it are
    taken in pieces; only then is `open_pack` used, and as much read. Blocks until done, some
    microseconds per file: run it in a thread. Setting `cancelled` ends it soon. The same packs
    always give the same bytes.
    """
    budget = Budget(limits, cancelled)
    layers: dict[PackKey, Layer] = {}
    tree = Tree(budget)
    for key, index in packs:
        if (index.compression, index.block_size) != (options.compression, options.block_size):
            message = f"pack {key} was made with other blocks than the image is to have"
            raise ImageInvalidError(message)
        # A layer may occur twice: its data then need not.
        layer = layers[key].again() if key in layers else Layer(index)
        layers.setdefault(key, layer)
        tree.apply(layer)
    inodes = number_nodes(tree, budget)
    layout = lay_out(layers, max_dead_share=max_dead_share, open_pack=open_pack, budget=budget)
    tables = build_tables(
        tree,
        inodes=inodes,
        fragments=layout.fragments,
        position=layout.end,
        codec=codec,
        compression=options.compression,
        block_size=options.block_size,
        budget=budget,
    )
    description = _identified(
        Description(
            image_id=_NO_ID,
            inodes=inodes,
            options=UsedOptions(**dict(options)),
            layers=tuple(
                ImageLayer(digest=digest, pack=key, length=index.data_length, live=layout.live[key])
                for digest, (key, index) in zip(source.layers, packs, strict=True)
            ),
            superblock=tables.superblock.pack().hex(),
            segments=layout.segments,
            tables=_region(layout.end, tables.blob),
            config=config,
            # By which of its names the manifest was asked for is no part of the image.
            source=source.model_copy(update={"reference": source.manifest}),
        )
    )
    blob = tables.blob + encode(description, codec)
    recipe = Recipe(
        image_id=description.image_id,
        size=layout.end + len(blob),
        inodes=inodes,
        compression=options.compression,
        block_size=options.block_size,
        superblock=description.superblock,
        segments=layout.segments,
        tables=_region(layout.end, blob),
        config=config,
        source=source,
        layers=description.layers,
    )
    return recipe, blob


def _identified(description: Description) -> Description:
    """An image's id names its bytes: all that it says of itself, and so its regions' digests.

    An image that is made otherwise, be it by another version of us, never takes another's file.
    """
    content = description.model_dump_json(exclude={"image_id"})
    return description.model_copy(update={"image_id": hashlib.sha256(content.encode()).hexdigest()})


def _region(offset: int, blob: bytes) -> Tables:
    return Tables(offset=offset, length=len(blob), sha256=hashlib.sha256(blob).hexdigest())
