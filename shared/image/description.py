"""What an image says of itself: a document at the end of its file.

Far from catalog and store it tells what the image is, where the data of each layer lies, how much
of that is alive, and what every byte must be. It lies behind the end that the superblock names, so
whoever reads squashfs does not see it, and is a part of the tables' blob, so whoever copies or
checks an image by its recipe need not know of it.
"""

import hashlib
import struct
from typing import Final, Literal

from pydantic import ConfigDict, ValidationError

from shared.image.codecs import BlockCodec, block_codec
from shared.image.errors import ImageCorruptError, ImageTooLargeError, ImageUnsupportedError
from shared.image.kinds import ALIGNMENT
from shared.image.packs.pack import PACK_VERSION
from shared.image.recipe import (
    RECIPE_VERSION,
    ImageConfig,
    ImageLayer,
    PackOptions,
    Segment,
    SourceDigests,
    SuperblockHex,
    Tables,
)
from shared.image.squashfs.superblock import Compressor
from shared.models import Bytes, ImageId, Tolerant

DESCRIPTION_VERSION: Final = 1
MAGIC: Final = b"DRAYDESC"
# Magic, version, length as stored, length when expanded.
_HEAD: Final = struct.Struct("<8sIII")
FOOTER_SIZE: Final = _HEAD.size + hashlib.sha256().digest_size
# What a codec takes in one piece; recipes that travel in events have less.
_MAX_SIZE: Final = 1 << 20
_MAX_STORED: Final = 2 * _MAX_SIZE


class UsedOptions(PackOptions):
    """How the packs were made, perhaps with options that only a later version knows."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Formats(Tolerant):
    """The versions of what the image was made of."""

    pack: int = PACK_VERSION
    recipe: int = RECIPE_VERSION


class Description(Tolerant):
    """The document."""

    v: Literal[1] = DESCRIPTION_VERSION
    formats: Formats = Formats()
    image_id: ImageId
    inodes: Bytes
    options: UsedOptions
    layers: tuple[ImageLayer, ...]
    superblock: SuperblockHex
    segments: tuple[Segment, ...]
    tables: Tables
    """Those of squashfs alone: this document, which lies behind them, has its own checksum."""
    config: ImageConfig
    source: SourceDigests


def encode(description: Description, codec: BlockCodec) -> bytes:
    """What to append to the tables so that the image ends with its description and on a page."""
    raw = description.model_dump_json().encode()
    if len(raw) > _MAX_SIZE:
        raise ImageTooLargeError(
            f"what the image says of itself takes {len(raw):,} bytes, and {_MAX_SIZE:,} are "
            "allowed: keep its environment and labels short"
        )
    stored = codec.compress(raw)
    head = _HEAD.pack(MAGIC, DESCRIPTION_VERSION, len(stored), len(raw))
    document = stored + head + hashlib.sha256(stored + head).digest()
    end = description.tables.offset + description.tables.length
    return bytes(-(end + len(document)) % ALIGNMENT) + document


def document_length(footer: bytes) -> int | None:
    """How long the document is, of which `footer` is the end; None: it is the end of none."""
    if len(footer) != FOOTER_SIZE or not footer.startswith(MAGIC):
        return None
    _, version, stored, _ = _HEAD.unpack_from(footer)
    if version != DESCRIPTION_VERSION:
        raise ImageUnsupportedError(
            f"what the image says of itself is of version {version}, {DESCRIPTION_VERSION} is "
            "known here: install a later version of Dray"
        )
    if stored > _MAX_STORED:
        raise ImageCorruptError("what the image says of itself has an impossible length")
    length: int = stored + FOOTER_SIZE
    return length


def decode(document: bytes, compression: Compressor) -> Description:
    """The description from the last `document_length` bytes of an image with such blocks."""
    match compression:
        case "zstd" | "gzip":
            codec = block_codec(compression)
        case _:
            raise ImageCorruptError(f"Dray makes no images with {compression} blocks")
    covered = document[: -hashlib.sha256().digest_size]
    if hashlib.sha256(covered).digest() != document[len(covered) :]:
        raise ImageCorruptError("what the image says of itself is damaged")
    _, _, stored, size = _HEAD.unpack_from(covered, len(covered) - _HEAD.size)
    raw = codec.decompress(document[:stored], min(size, _MAX_SIZE))
    try:
        return Description.model_validate_json(raw)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "document"
        raise ImageCorruptError(
            f"what the image says of itself cannot be read: {where}: {problem['msg']}"
        ) from exc
