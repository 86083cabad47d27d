"""The one call that makes a pack; it blocks, so that its caller runs it in a thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.converter.packing.blocks import BlockWriter
from services.converter.packing.compressors import Compressors
from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.limits import Limits
from services.converter.packing.packer import Packer
from services.converter.packing.stream import ByteSource, LayerDigests, LayerStream
from services.converter.packing.tar_bytes import TarBytes
from services.converter.packing.tar_reader import TarReader
from shared.files import publishing
from shared.image.codecs import block_codec
from shared.image.errors import WorkCancelledError
from shared.image.packs.index import PackIndex
from shared.image.packs.pack import pack_key, write_index
from shared.image.recipe import PackKey, PackOptions

_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class PackSummary:
    """What became of a layer; digests are "sha256:…", sizes in bytes."""

    key: PackKey
    blob: str
    diff_id: str
    blob_size: int
    tar_size: int
    data_length: int
    entries: int


def pack_layer(
    source: ByteSource,
    *,
    expected: LayerDigests,
    options: PackOptions,
    out_path: Path,
    compressors: Compressors,
    on_progress: Callable[[int], None],
    cancelled: threading.Event,
    limits: Limits = _DEFAULT_LIMITS,
    literal: bool = False,
) -> PackSummary:
    """Read a layer's blob to its end and publish its pack at `out_path`.

    The pack appears whole, durable and only when all that is `expected` was found true; on any
    error nothing is left. `source` is closed in every case. `on_progress` gets the number of
    blob bytes read so far, from another thread. Setting `cancelled` ends the work soon.
    `literal`: what is called like a whiteout is a file like others.
    """
    codec = block_codec(options.compression, options.level)
    index = PackIndex(compression=options.compression, block_size=options.block_size)
    with (
        LayerStream(
            source,
            expected=expected,
            limits=limits,
            on_progress=on_progress,
            cancelled=cancelled,
        ) as layer,
        publishing(out_path) as out,
        BlockWriter(out, codec, compressors, index) as blocks,
    ):
        reader = TarReader(TarBytes(layer.next_chunk), limits)
        packer = Packer(options, index, blocks, limits, reader.read, literal=literal)
        try:
            for member in reader:
                packer.add(member)
            facts = layer.finish()
        except LayerInvalidError:
            # A damaged transfer explains more than what it did to the tar, and can be repeated.
            layer.blame_transfer()
            raise
        packer.finish()
        key = pack_key(facts.diff_id, options, literal=literal)
        write_index(out, index, key)
        if cancelled.is_set():
            raise WorkCancelledError("packing the layer was cancelled")
    return PackSummary(
        key=key,
        blob=facts.blob,
        diff_id=facts.diff_id,
        blob_size=facts.blob_size,
        tar_size=facts.tar_size,
        data_length=index.data_length,
        entries=len(index.names),
    )
