"""Between the gateway and the distributors: what stands on a system's file system, and for whom."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.events.base import Event, PullEvent, ShortText
from shared.image.recipe import Recipe
from shared.layout import PlacedLayout
from shared.models import Bytes, ImageId, Sha256, SystemName, Tolerant

Uid = Annotated[int, Field(ge=0, lt=1 << 32)]
MAX_READERS = 4096


class Readers(Tolerant):
    """The users and groups that may use a private image, its owner included."""

    uids: Annotated[tuple[Uid, ...], Field(max_length=MAX_READERS)] = ()
    gids: Annotated[tuple[Uid, ...], Field(max_length=MAX_READERS)] = ()


class PlacementRequested(PullEvent):
    """To a system's distributor: weave this recipe into the system's image directory."""

    type: Literal["placement.requested"] = "placement.requested"
    system: SystemName
    recipe: Recipe
    reference: ShortText = ""
    """What users call it: some images get a better layout."""
    readers: Readers | None = None
    """Who may use it; None: everybody."""

    @property
    def routing_key(self) -> str:
        return f"{self.type}.{self.system}"


class ImagePlaced(PullEvent):
    """From a distributor: the image stands under its final name, verified and durable."""

    type: Literal["image.placed"] = "image.placed"
    system: SystemName
    image_id: ImageId
    content_digest: Sha256
    size: Bytes
    layout: PlacedLayout | None = None
    """None where files have none."""


class SystemEvent(Event):
    """To the distributor of one system, about an image that is placed there."""

    system: SystemName
    image_id: ImageId

    @property
    def routing_key(self) -> str:
        return f"{self.type}.{self.system}"


class ReadersChanged(SystemEvent):
    """Who may use an image that is placed has changed; None: everybody."""

    type: Literal["image.readers_changed"] = "image.readers_changed"
    readers: Readers | None = None
    revision: Annotated[int, Field(ge=1)]
    """Only grows: what says less is older, and late."""


class ImageExpireRequested(SystemEvent):
    """A reference no longer stands for this image: mark it, and ask whether it may go."""

    type: Literal["image.expire_requested"] = "image.expire_requested"


Mark = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class RemovalProposed(Event):
    """From a distributor: this image is marked; may it go? Placing it makes the mark another."""

    type: Literal["image.removal_proposed"] = "image.removal_proposed"
    system: SystemName
    image_id: ImageId
    mark: Mark


class RemovalDecided(SystemEvent):
    """Remove the image, or forget its mark, if it still bears this very mark."""

    type: Literal["image.removal_decided"] = "image.removal_decided"
    mark: Mark
    remove: bool


class ImageExpired(Event):
    """From a distributor: the image is gone from its system."""

    type: Literal["image.expired"] = "image.expired"
    system: SystemName
    image_id: ImageId
