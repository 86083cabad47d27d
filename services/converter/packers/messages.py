"""What an owner of layers, the nursery and a packer tell each other: JSON, one packet each.

Errors come back as what they were, as far as the owner can act on it.
"""

import json
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from services.converter import crossing
from services.converter.crossing import Trouble
from services.converter.packing.errors import (
    LayerInvalidError,
    LayerMismatchError,
    LayerTooLargeError,
)
from services.converter.packing.limits import Limits
from services.converter.packing.pack_layer import PackSummary
from services.converter.packing.stream import LayerDigests
from shared.errors import DrayError, MissingDependencyError
from shared.image.errors import ImageCorruptError, WorkCancelledError
from shared.image.recipe import PackOptions
from shared.models import Strict

MAX_PACKET: Final = 1 << 17
"""Below what a socket takes at once by default."""

_ERRORS: Final[dict[str, type[DrayError]]] = {
    error.code: error
    for error in (
        ImageCorruptError,
        LayerInvalidError,
        LayerMismatchError,
        LayerTooLargeError,
        MissingDependencyError,
        WorkCancelledError,
    )
}


class PackOrder(Strict):
    """A layer to pack, as pack_layer wants it; `memory` bounds what its process may allocate."""

    expected: LayerDigests
    options: PackOptions
    limits: Limits
    out_path: str
    literal: bool = False
    threads: int
    memory: int


class Packed(Strict):
    """The packer's: it is done."""

    kind: Literal["packed"] = "packed"
    summary: PackSummary


class Unstarted(Strict):
    """The nursery's: it could not make a process."""

    kind: Literal["unstarted"] = "unstarted"
    reason: str


class Ended(Strict):
    """The nursery's: the packer's process is gone. Its status is negative for a signal."""

    kind: Literal["ended"] = "ended"
    status: int


Outcome = Packed | Trouble
Message = Outcome | Unstarted | Ended

_MESSAGE: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def order_of(packet: bytes) -> PackOrder:
    return PackOrder.model_validate(json.loads(packet))


def message_of(packet: bytes) -> Message:
    return _MESSAGE.validate_python(json.loads(packet))


def error_of(trouble: Trouble) -> Exception:
    """The error that it was in the packer."""
    return crossing.error_of(trouble, _ERRORS, "the packer of a layer")
