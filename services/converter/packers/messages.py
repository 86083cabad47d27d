"""What an owner of layers, the nursery and a packer tell each other: JSON, one packet each.

Errors come back as what they were, as far as the owner can act on it.
"""

import json
import os
import traceback
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

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
_MAX_TEXT: Final = 8 << 10

_ERRORS: Final = {
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


class Refused(Strict):
    """The packer's: an error that has a name."""

    kind: Literal["refused"] = "refused"
    code: str
    message: str


class Failed(Strict):
    """The packer's: an error of the operating system."""

    kind: Literal["failed"] = "failed"
    errno: int
    filename: str | None


class Crashed(Strict):
    """The packer's: a fault of our own."""

    kind: Literal["crashed"] = "crashed"
    traceback: str


class Unstarted(Strict):
    """The nursery's: it could not make a process."""

    kind: Literal["unstarted"] = "unstarted"
    reason: str


class Ended(Strict):
    """The nursery's: the packer's process is gone. Its status is negative for a signal."""

    kind: Literal["ended"] = "ended"
    status: int


Outcome = Packed | Refused | Failed | Crashed
Message = Outcome | Unstarted | Ended

_MESSAGE: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def encoded(message: Strict) -> bytes:
    # Not pydantic's own JSON, which has no words for names that are not UTF-8.
    return json.dumps(message.model_dump()).encode()


def order_of(packet: bytes) -> PackOrder:
    return PackOrder.model_validate(json.loads(packet))


def message_of(packet: bytes) -> Message:
    return _MESSAGE.validate_python(json.loads(packet))


def outcome_of(error: Exception) -> Outcome:
    """An error in words that cross to another process."""
    if isinstance(error, DrayError):
        return Refused(code=error.code, message=error.message[:_MAX_TEXT])
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        return Failed(errno=error.errno, filename=None if name is None else os.fsdecode(name))
    return Crashed(traceback="".join(traceback.format_exception(error))[-_MAX_TEXT:])


def error_of(outcome: Refused | Failed | Crashed) -> Exception:
    """The error that it was on the other side; one that nobody knows is one of our own."""
    match outcome:
        case Failed():
            return OSError(outcome.errno, os.strerror(outcome.errno), outcome.filename)
        case Refused():
            return _ERRORS.get(outcome.code, DrayError)(outcome.message)
        case Crashed():
            return DrayError(
                "the packer of a layer met an error of its own; tell the operator to look at the "
                "converter's log"
            )
