"""What a conversion needs to know of an image, wherever it lies."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from services.converter.registry.platforms import Platform
from shared.deadline import Deadline
from shared.image.merging.budget import ImageLimits
from shared.image.recipe import ImageConfig, SourceDigests
from shared.models import Digest, Sha256

DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True)
class Proof:
    """Where a layer comes from, and how that place is asked whether this user may have it."""

    registry: str
    """Or whoever else gave it."""
    public: bool
    """It gives it to everybody, or to the site."""
    confirm: Callable[[Deadline], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """One layer: what must be found in it, and how to read it.

    As a rule `diff_id` is known, so that a layer that is packed already need not be read; `blob` is
    not where a source names only the tars. Where nobody promised a digest there is a `stamp`
    instead, until the layer has been read. `open` gives chunks: close it (contextlib.aclosing).
    """

    diff_id: Digest | None
    blob: Digest | None
    size: int
    """Of the blob; with a stamp only about how much there will be."""
    open: Callable[[Deadline], AsyncGenerator[bytes, None]]
    proof: Proof | None = None
    """How to know that whoever pulls it may have it; None: it is at hand."""
    stamp: Sha256 | None = None
    """What this layer looked like from outside: of what looks the same, the diff id is the same."""
    literal: bool = False
    """What is called like a whiteout is a file: no layer of another tool's is meant."""

    @property
    def name(self) -> Digest:
        """What tells this layer from others, in progress and in errors."""
        return self.blob or self.identity

    @property
    def identity(self) -> Digest:
        """Layers of one identity have the same content."""
        return self.diff_id or f"sha256:{self.stamp}"


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image for one platform, verified down to its config."""

    called: str
    config: ImageConfig
    digests: SourceDigests
    """Where layers have stamps, they become digests of content when these are packed."""
    layers: tuple[SourceLayer, ...]
    limits: ImageLimits = DEFAULT_LIMITS
    notes: tuple[str, ...] = ()
    """What was left out on purpose, to be told."""


class Source(Protocol):
    """One image somewhere."""

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage: ...
