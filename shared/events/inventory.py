"""Between distributors and gateways: is what stands in image directories what the catalog says?

A distributor asks, page by page, what the catalog has, and says in batches what it found. Both are
only hints to look: whether a file goes is asked as ever (`image.removal_proposed`), and that an
image is lost is said after trying to make it again. What gets lost of this is said again the next
time.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.events.base import Event, ShortText
from shared.models import Bytes, ImageId, Instant, SystemName, Tolerant

MOST_IMAGES: Final = 500


class ExpectedImage(Tolerant):
    """What a record stands for."""

    image_id: ImageId
    size: Bytes
    ready_at: Instant


class InventoryRequested(Event):
    """From a distributor: what does the catalog have of this system, beyond that place?"""

    type: Literal["inventory.requested"] = "inventory.requested"
    system: SystemName
    after: Annotated[str, Field(max_length=1024)] | None = None


class InventoryExpected(Event):
    """To a distributor: this should stand; `next` is where to go on, None at the end."""

    type: Literal["inventory.expected"] = "inventory.expected"
    system: SystemName
    images: Annotated[tuple[ExpectedImage, ...], Field(max_length=MOST_IMAGES)]
    next: Annotated[str, Field(max_length=1024)] | None = None

    @property
    def routing_key(self) -> str:
        return f"{self.type}.{self.system}"


class InventoryFound(Event):
    """From a distributor: these stand, and are none of the youngest."""

    type: Literal["inventory.found"] = "inventory.found"
    system: SystemName
    images: Annotated[tuple[ImageId, ...], Field(max_length=MOST_IMAGES)]


class InventoryUnknown(Event):
    """To a distributor: no record stands for these."""

    type: Literal["inventory.unknown"] = "inventory.unknown"
    system: SystemName
    images: Annotated[tuple[ImageId, ...], Field(max_length=MOST_IMAGES)]

    @property
    def routing_key(self) -> str:
        return f"{self.type}.{self.system}"


class ImageLost(Event):
    """From a distributor: the image is missing or damaged, and could not be made again."""

    type: Literal["image.lost"] = "image.lost"
    system: SystemName
    image_id: ImageId
    as_of: Instant
    """What was placed later is not meant."""
    message: ShortText
