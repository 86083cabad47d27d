"""Between the gateway and the converters: pulls and freshness checks."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from shared.errors import DrayError
from shared.events.base import MAX_TEXT, PullEvent, ShortText
from shared.image.recipe import DeadShare, PackOptions, Recipe
from shared.models import Bytes, Digest, Tolerant
from shared.states import State

Ticket = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{16,256}$")]


class PullRequested(PullEvent):
    """To a converter: make this image."""

    type: Literal["pull.requested"] = "pull.requested"
    reference: ShortText
    platform: ShortText
    options: PackOptions
    max_dead_share: DeadShare
    user: ShortText = ""
    """Who asks, as whoever examines the image is told."""
    ticket: Ticket | None = None
    """Good once, at a gateway, for the credentials of the user who asked."""


class RefreshRequested(PullEvent):
    """To a converter: does this reference still point to what we have?"""

    type: Literal["refresh.requested"] = "refresh.requested"
    reference: ShortText
    platform: ShortText
    known_digest: Digest
    ticket: Ticket | None = None
    """Good once, at a gateway, for the credentials of the user who asked."""


class LayerProgress(Tolerant):
    """How far one layer is, in bytes of the compressed blob."""

    digest: Digest
    done: Bytes
    total: Bytes
    cached: bool = False


class PullProgressed(PullEvent):
    """From whoever works on a pull: still alive, and this far. Renews the pull's lease."""

    type: Literal["pull.progressed"] = "pull.progressed"
    stage: State
    done: Bytes = 0
    total: Bytes = 0
    rate: Annotated[float, Field(ge=0)] = 0.0
    layers: Annotated[tuple[LayerProgress, ...], Field(max_length=256)] = ()


class ImageUnchanged(PullEvent):
    """From a converter: the reference points to the digest that the catalog knows."""

    type: Literal["image.unchanged"] = "image.unchanged"
    reference_digest: Digest
    authenticated: bool = False
    """Whether the registry gave it only to the user's credentials: then it is private."""


class ImageChanged(PullEvent):
    """From a converter: the reference points elsewhere now."""

    type: Literal["image.changed"] = "image.changed"
    reference_digest: Digest


class ImageConverted(PullEvent):
    """From a converter: all packs are in the store, and this recipe makes the image of them."""

    type: Literal["image.converted"] = "image.converted"
    recipe: Recipe
    authenticated: bool = False
    """Whether the registry gave it only to the user's credentials: then it is private."""


class PullFailed(PullEvent):
    """From whoever worked on a pull: it ended, and why."""

    type: Literal["pull.failed"] = "pull.failed"
    code: Annotated[str, Field(max_length=64)]
    message: ShortText
    retryable: bool = False

    @classmethod
    def because(cls, cause: PullEvent, error: DrayError) -> Self:
        return cls(
            **cause.context,
            code=error.code,
            message=error.message[:MAX_TEXT],
            retryable=error.retryable,
        )
