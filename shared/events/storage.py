"""How much is stored where: told by whoever looks after it, now and then.

Of a system's image directory the distributor tells, of the pack store whoever cleans it. Lost, it
is told again.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.events.base import Event
from shared.models import Bytes, SystemName, Tolerant


class Counted(Tolerant):
    """What was found where all of it was looked at."""

    items: Bytes
    """Images, or packs."""
    bytes: Bytes


class StorageReported(Event):
    """Of one image directory (`system`), or one pack store (`store`)."""

    type: Literal["storage.reported"] = "storage.reported"
    system: SystemName | None = None
    store: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Which store, by a digest of its path: the path is nobody's business."""
    counted: Counted | None = None
    """None: only the room was looked at."""
    free_bytes: Bytes
    reserve_bytes: Bytes = 0

    @model_validator(mode="after")
    def _of_one_place(self) -> Self:
        if (self.system is None) == (self.store is None):
            message = "either system or store must be given"
            raise ValueError(message)
        return self
