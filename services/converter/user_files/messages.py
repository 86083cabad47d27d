"""What the owner of a user's process and that process tell each other: JSON, one packet each.

Descriptors travel beside it. Names that are not UTF-8 travel as Python has them.
"""

import json
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from services.converter import crossing
from services.converter.crossing import Trouble
from services.converter.disks import errors as disks
from services.converter.packing import errors as packing
from services.converter.sources import errors as sources
from services.converter.trees import errors as trees
from shared.errors import DrayError
from shared.events import Uid
from shared.image import errors as image
from shared.models import Strict

MAX_PACKET: Final = 1 << 17
MAX_FDS: Final = 16
_ERRORS: Final = {
    each.code: each
    for module in (disks, image, packing, sources, trees)
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


Order = Open | Run
Answer = Done | Trouble

_ORDER: Final[TypeAdapter[Order]] = TypeAdapter(Annotated[Order, Field(discriminator="do")])
_ANSWER: Final[TypeAdapter[Answer]] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])


def order_of(packet: bytes) -> Order:
    return _ORDER.validate_python(json.loads(packet))


def answer_of(packet: bytes) -> Answer:
    return _ANSWER.validate_python(json.loads(packet))


def error_of(trouble: Trouble) -> Exception:
    """The error that it was in the process."""
    return crossing.error_of(trouble, _ERRORS, "the process that reads a user's files")
