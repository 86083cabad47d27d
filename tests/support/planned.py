"""Images made of a pack's index: what no layer leads to, and metadata that stand as they are."""

import hashlib
import threading
from pathlib import Path
from typing import BinaryIO

from shared.image.codecs import BlockCodec, block_codec
from shared.image.packs.index import PackIndex
from shared.image.planning.plan import plan_image
from shared.image.recipe import ImageConfig, PackOptions
from tests.support.packing import source_of

KEY = "0" * 64


class Stored:
    """Compresses nothing, so that a test finds a field of the tables where it is."""

    def compress(self, block: bytes, /) -> bytes:
        return block

    def decompress(self, block: bytes, limit: int, /) -> bytes:
        raise AssertionError(f"nothing is compressed: {block[:limit]!r}")


def write_image(
    path: Path,
    index: PackIndex,
    data: bytes = b"",
    *,
    data_at: int = 0,
    codec: BlockCodec | None = None,
) -> None:
    """The image of one layer, whose data region has `data` at `data_at`, and zeros before."""
    index.data_length = data_at + len(data)
    index.data_sha256 = hashlib.sha256(data).hexdigest()
    recipe, blob = plan_image(
        [(KEY, index)],
        options=PackOptions.model_validate(
            {"compression": index.compression, "block_size": index.block_size}
        ),
        max_dead_share=1,
        config=ImageConfig(),
        source=source_of(1),
        codec=codec or block_codec(index.compression),
        open_pack=_never_opened,
        cancelled=threading.Event(),
    )
    with path.open("wb") as file:
        file.write(bytes.fromhex(recipe.superblock))
        for segment in recipe.segments:
            file.seek(segment.offset + data_at)
            file.write(data)
        file.seek(recipe.tables.offset)
        file.write(blob)
        file.truncate(recipe.size)


def _never_opened(key: str) -> BinaryIO:
    raise AssertionError(f"pack {key} is taken as a whole")
