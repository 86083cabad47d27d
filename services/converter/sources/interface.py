"""What a conversion needs to know of an image, wherever it lies."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from services.converter.registry.platforms import Platform
from shared.deadline import Deadline
from shared.image.recipe import ImageConfig, SourceDigests
from shared.models import Digest


@dataclass(frozen=True, slots=True)
class Proof:
    """Where a layer comes from, and how that place is asked whether this user may have it."""

    registry: str
    public: bool
    """It gives it to everybody, or to the site."""
    confirm: Callable[[Deadline], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """One layer: what must be found in it, and how to read it.

    `diff_id` is always known, so that a layer that is packed already need not be read; `blob` is
    not where a source names only the tars. `open` gives chunks: close it (contextlib.aclosing).
    """

    diff_id: Digest
    blob: Digest | None
    size: int
    open: Callable[[Deadline], AsyncGenerator[bytes, None]]
    proof: Proof | None = None
    """How to know that whoever pulls it may have it; None: it is at hand."""

    @property
    def name(self) -> Digest:
        """What tells this layer from others, in progress and in errors."""
        return self.blob or self.diff_id


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image for one platform, verified down to its config."""

    called: str
    config: ImageConfig
    digests: SourceDigests
    layers: tuple[SourceLayer, ...]


class Source(Protocol):
    """One image somewhere."""

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage: ...
