"""The recipe: what a flat image consists of, small enough to travel in an event.

A flat image is a superblock, then each pack's data region copied verbatim at its offset, then one
blob of freshly made tables; everything between is zero. Whoever holds the recipe and the store
can therefore make the image, byte for byte, without a codec.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from shared.models import Bytes, Digest, ImageId, Sha256, Strict, Tolerant

RECIPE_VERSION: Final = 1

Compression = Literal["zstd", "gzip"]
PackKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class PackOptions(Strict):
    """Everything besides a layer's content that decides a pack's bytes; chosen per system."""

    compression: Compression = "zstd"
    level: Annotated[int, Field(ge=1, le=22)] = 3
    block_size: Literal[4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576] = 131072
    keep_owners: bool = False
    keep_setuid: bool = False
    keep_devices: bool = False
    xattr_prefixes: tuple[str, ...] = ("user.",)


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


class Recipe(Tolerant):
    """How to make one flat image out of the store."""

    v: Literal[1] = RECIPE_VERSION
    image_id: ImageId
    size: Bytes
    inodes: Bytes
    compression: Compression
    block_size: int
    superblock: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{192}$")]
    segments: tuple[Segment, ...]
    tables: Tables
    config: ImageConfig
    source: SourceDigests

    @model_validator(mode="after")
    def _regions_follow_each_other(self) -> Self:
        """Superblock, segments and tables, in this order and without overlap, within the size."""
        regions: list[Segment | Tables] = [*self.segments, self.tables]
        ends = [region.offset + region.length for region in regions]
        starts = [region.offset for region in regions]
        overlap = any(end > start for end, start in zip(ends, starts[1:], strict=False))
        if starts[0] < len(self.superblock) // 2 or overlap or ends[-1] > self.size:
            raise ValueError("the recipe's regions overlap or end outside of the image")
        return self
