"""Which of several images in an archive a user means."""

from collections.abc import Sequence
from typing import Final, TypeVar

from services.converter.sources.errors import ArchiveInvalidError, ImageNotInArchiveError
from shared.errors import InvalidReferenceError
from shared.reference import parse_reference

T = TypeVar("T")

_SHOWN: Final = 12


def same_image(asked: str, name: str) -> bool:
    """Whether two names mean one image, however short they are written."""
    if asked == name:
        return True
    try:
        return parse_reference(asked) == parse_reference(name)
    except InvalidReferenceError:
        return False


def sole(found: Sequence[T], asked: str | None, names: Sequence[str], called: str) -> T:
    """The only one of those that were found; `names` are those that could have been asked for."""
    if len(found) == 1:
        return found[0]
    listed = ", ".join(name[:255] for name in names[:_SHOWN])
    listed += f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    if not found and asked is None:
        raise ArchiveInvalidError(f"{called} holds no image")
    if not found:
        raise ImageNotInArchiveError(
            f"{called} holds no image named {asked!r}, but {listed or 'only one without a name'}"
        )
    raise ImageNotInArchiveError(
        f"{called} holds several images: name one of {listed}"
        if listed
        else f"{called} holds several images without names: archive the one that you want alone"
    )
