"""The recipe: what a flat image consists of, small enough to travel in an event.

A flat image is a superblock, then each pack's data region copied verbatim at its offset, then one
blob of freshly made tables; everything between is zero. Whoever holds the recipe and the store
can therefore make the image, byte for byte, without a codec.
"""

import hashlib
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shared.models import Bytes, Digest, ImageId, Sha256, Strict, Tolerant

RECIPE_VERSION: Final = 1

Compression = Literal["zstd", "gzip"]
PackKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SuperblockHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{192}$")]
# Squashfs has no other name spaces: what could never be kept is refused where it is asked for.
XattrName = Annotated[
    str, StringConstraints(pattern=r"^(user|trusted|security)\.[!-~]*$", max_length=255)
]
# One order, since the list is part of a pack's key.
Xattrs = Annotated[tuple[XattrName, ...], AfterValidator(lambda names: tuple(sorted(set(names))))]


class PackOptions(Strict):
    """Everything besides a layer's content that decides a pack's bytes; chosen per system."""

    compression: Compression = "zstd"
    level: Annotated[int, Field(ge=1, le=22)] = 3
    block_size: Literal[4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576] = 131072
    keep_owners: bool = False
    keep_setuid: bool = False
    keep_devices: bool = False
    xattrs: Xattrs = ("user.",)


# Where more of an image's data is dead than this share, it is woven without. 1 keeps all of it.
DeadShare = Annotated[float, Field(ge=0, le=1)]


class Segment(Tolerant):
    """A part of one pack's data region in the flat image; as a rule it is all of it."""

    pack: PackKey
    offset: Bytes
    length: Bytes
    sha256: Sha256
    source: Bytes = 0
    """Where in the pack it begins."""


class Tables(Tolerant):
    """The squashfs tables, a blob of its own in the store, named by its sha256."""

    offset: Bytes
    length: Bytes
    sha256: Sha256


class ImageConfig(Tolerant):
    """What an image says about how it wants to be run."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class SourceDigests(Tolerant):
    """Where an image came from, as digests that can be checked again."""

    reference: Digest
    """What the reference pointed to: the index, of an image for several platforms."""
    manifest: Digest
    config: Digest
    layers: tuple[Digest, ...]


class ImageLayer(Tolerant):
    """One layer, the lowest first: which pack it became, and how much of that the image shows."""

    digest: Digest
    pack: PackKey
    length: Annotated[Bytes, Field(lt=1 << 63)]
    """Of the pack's data region."""
    live: Annotated[Bytes, Field(lt=1 << 63)]
    """Of that, what files of the image refer to; upper layers hide the rest."""


class Recipe(Tolerant):
    """How to make one flat image out of the store."""

    v: Literal[1] = RECIPE_VERSION
    image_id: ImageId
    size: Bytes
    inodes: Bytes
    compression: Compression
    block_size: int
    superblock: SuperblockHex
    segments: tuple[Segment, ...]
    tables: Tables
    config: ImageConfig
    source: SourceDigests
    layers: tuple[ImageLayer, ...] = ()
    """Empty in a recipe of an earlier version."""

    @model_validator(mode="after")
    def _regions_follow_each_other(self) -> Self:
        """Superblock, segments and tables, in this order and without overlap, within the size."""
        ends = [region.offset + region.length for region in self.regions]
        starts = [region.offset for region in self.regions]
        overlap = any(end > start for end, start in zip(ends, starts[1:], strict=False))
        if starts[0] < len(self.superblock) // 2 or overlap or ends[-1] > self.size:
            raise ValueError("the recipe's regions overlap or end outside of the image")
        return self

    @property
    def regions(self) -> tuple[Segment | Tables, ...]:
        """All that is copied into the image, in the order of their offsets."""
        return (*self.segments, self.tables)

    @property
    def content_digest(self) -> Sha256:
        """Says what the image's bytes are, as the sha256 of the whole file would.

        It is made of the regions' digests, so that many threads can check an image, and only the
        part that was fetched needs to be read.
        """
        digest = hashlib.sha256(f"dray-content 1 {self.size} {self.superblock}".encode())
        for region in self.regions:
            digest.update(f"\n{region.offset} {region.length} {region.sha256}".encode())
        return digest.hexdigest()
