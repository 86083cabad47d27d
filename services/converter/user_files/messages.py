"""What the owner of a user's process and that process tell each other: JSON, one packet each.

Descriptors travel beside it. Names that are not UTF-8 travel as Python has them.
"""

import json
import os
import traceback
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from services.converter.packing import errors as packing
from services.converter.sources import errors as sources
from services.converter.trees import errors as trees
from shared.errors import DrayError
from shared.events import Uid
from shared.image import errors as image
from shared.models import Strict

MAX_PACKET: Final = 1 << 17
MAX_FDS: Final = 16
_MAX_TEXT: Final = 8 << 10
_ERRORS: Final = {
    each.code: each
    for module in (image, packing, sources, trees)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, DrayError)
}


class Become(Strict):
    """The first word of the owner: whose rights to take; None: those that it has."""

    uid: Uid | None
    gids: tuple[Uid, ...] = ()


class Open(Strict):
    """The owner's: open this, within the directory that comes along, if one does."""

    do: Literal["file", "directory"]
    path: str


class Run(Strict):
    """The owner's: do this with the descriptors that come along."""

    do: Literal["run"] = "run"
    job: str
    order: str


class Done(Strict):
    """The process's; what it has opened comes along."""

    kind: Literal["done"] = "done"
    answer: str = ""


class Refused(Strict):
    """The process's: an error that has a name."""

    kind: Literal["refused"] = "refused"
    code: str
    message: str


class Failed(Strict):
    """The process's: an error of the operating system."""

    kind: Literal["failed"] = "failed"
    errno: int
    filename: str | None


class Crashed(Strict):
    """The process's: a fault of our own."""

    kind: Literal["crashed"] = "crashed"
    traceback: str


Order = Open | Run
Answer = Done | Refused | Failed | Crashed

_ORDER: Final[TypeAdapter[Order]] = TypeAdapter(Annotated[Order, Field(discriminator="do")])
_ANSWER: Final[TypeAdapter[Answer]] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])


def encoded(message: Strict) -> bytes:
    # Not pydantic's own JSON, which has no words for names that are not UTF-8.
    return json.dumps(message.model_dump()).encode()


def order_of(packet: bytes) -> Order:
    return _ORDER.validate_python(json.loads(packet))


def answer_of(packet: bytes) -> Answer:
    return _ANSWER.validate_python(json.loads(packet))


def told(error: Exception) -> Refused | Failed | Crashed:
    """An error in words that cross to another process."""
    if isinstance(error, DrayError):
        return Refused(code=error.code, message=error.message[:_MAX_TEXT])
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        # A descriptor where a name should be says nothing to anybody.
        known = isinstance(name, str | bytes)
        return Failed(errno=error.errno, filename=os.fsdecode(name) if known else None)
    return Crashed(traceback="".join(traceback.format_exception(error))[-_MAX_TEXT:])


def error_of(answer: Refused | Failed | Crashed) -> Exception:
    """The error that it was on the other side."""
    match answer:
        case Failed():
            return OSError(answer.errno, os.strerror(answer.errno), answer.filename)
        case Refused():
            return _ERRORS.get(answer.code, DrayError)(answer.message)
        case Crashed():
            return DrayError(
                "the process that reads a user's files met an error of its own; tell the operator "
                "to look at the converter's log"
            )
