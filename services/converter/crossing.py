"""How an error crosses from a process of ours to its owner: as what it was, if that can be said."""

import json
import os
import traceback
from collections.abc import Mapping
from typing import Final, Literal

from shared.errors import DrayError
from shared.models import Strict

_MAX_TEXT: Final = 8 << 10


class Refused(Strict):
    """An error that has a name."""

    kind: Literal["refused"] = "refused"
    code: str
    message: str


class Failed(Strict):
    """An error of the operating system."""

    kind: Literal["failed"] = "failed"
    errno: int
    filename: str | None


class Crashed(Strict):
    """A fault of our own."""

    kind: Literal["crashed"] = "crashed"
    traceback: str


Trouble = Refused | Failed | Crashed


def encoded(message: Strict) -> bytes:
    # Not pydantic's own JSON, which has no words for names that are not UTF-8.
    return json.dumps(message.model_dump()).encode()


def told(error: Exception) -> Trouble:
    """In words that cross to another process."""
    if isinstance(error, DrayError):
        return Refused(code=error.code, message=error.message[:_MAX_TEXT])
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename
        # A descriptor where a name should be says nothing to anybody.
        known = isinstance(name, str | bytes)
        return Failed(errno=error.errno, filename=os.fsdecode(name) if known else None)
    return Crashed(traceback="".join(traceback.format_exception(error))[-_MAX_TEXT:])


def error_of(trouble: Trouble, known: Mapping[str, type[DrayError]], who: str) -> Exception:
    """The error that it was on the other side; one that nobody knows is one of our own."""
    match trouble:
        case Failed():
            return OSError(trouble.errno, os.strerror(trouble.errno), trouble.filename)
        case Refused():
            return known.get(trouble.code, DrayError)(trouble.message)
        case Crashed():
            return DrayError(
                f"{who} met an error of its own; tell the operator to look at the converter's log"
            )
