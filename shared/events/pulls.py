"""Between the gateway and the converters: pulls and freshness checks."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from shared.errors import DrayError
from shared.events.base import MAX_TEXT, NeverTraced, PullEvent, ShortText
from shared.events.images import Uid
from shared.formats import MAX_PATH, Format
from shared.image.recipe import DeadShare, PackOptions, Recipe
from shared.models import Bytes, Digest, Rate, Tolerant
from shared.states import State

MAX_GROUPS = 4096
_Path = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=MAX_PATH)]
_Identity = Annotated[str, Field(max_length=1024)]
Ticket = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{16,256}$")]


class ImportedFile(Tolerant):
    """What somebody imports, and whose rights must suffice to read it."""

    path: _Path
    format: Format | None = None
    """None: what only a look into it tells."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """Which one, of a file that holds several."""
    uid: Uid
    gids: Annotated[tuple[Uid, ...], Field(max_length=MAX_GROUPS)] = ()

    @property
    def what(self) -> tuple[str, str | None, str | None, int]:
        """The same for the same import, in whatever group its user asks."""
        return self.path, self.format, self.image, self.uid


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
    file: ImportedFile | None = None
    """Where the image is, if in no registry."""


class RefreshRequested(PullEvent):
    """To a converter: does this reference still point to what we have?"""

    type: Literal["refresh.requested"] = "refresh.requested"
    reference: ShortText
    platform: ShortText
    known_digest: Digest
    ticket: Ticket | None = None
    """Good once, at a gateway, for the credentials of the user who asked."""
    file: ImportedFile | None = None
    known_file: _Identity | None = None
    """What the file was when it was imported."""


class LayerProgress(Tolerant):
    """How far one layer is, in bytes of the compressed blob."""

    digest: Digest
    done: Bytes
    total: Bytes
    cached: bool = False


class PullProgressed(PullEvent):
    """From whoever works on a pull: still alive, and this far. Renews the pull's lease."""

    type: Literal["pull.progressed"] = "pull.progressed"
    trace: NeverTraced = None
    """Never: coming twice a second, they would be most of what there is to see in one."""
    stage: State
    done: Bytes = 0
    total: Bytes = 0
    rate: Rate = 0.0
    layers: Annotated[tuple[LayerProgress, ...], Field(max_length=256)] = ()
    waiting: ShortText | None = None
    """What it waits for, such as a registry that asks to come back later."""


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
    file: _Identity | None = None
    """What tells the file that was imported from any other; None: that cannot be told."""


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
