"""Why a tree cannot become an image."""

from collections.abc import Sequence
from typing import Self

from shared.errors import DrayError, InvalidInputError

SHOWN = 5


class TreeUnreadableError(InvalidInputError):
    """Some of the tree's files may not be read by whoever imports it."""

    code = "tree_unreadable"
    status = 422

    @classmethod
    def of(cls, count: int, first: Sequence[bytes]) -> Self:
        them = "it" if count == 1 else "them"
        return cls(
            f"{_files(count)} of the tree cannot be read: {shown(count, first)}; make {them} "
            f"readable to you (chmod u+rX), or import a copy without {them}"
        )


class TreeChangedError(DrayError):
    """Files of the tree changed or vanished while it was imported."""

    code = "tree_changed"
    status = 409
    retryable = True

    @classmethod
    def of(cls, count: int, first: Sequence[bytes]) -> Self:
        return cls(
            f"{_files(count)} of the tree changed or vanished while it was read: "
            f"{shown(count, first)}; let nobody write there and import again: only what has "
            "changed is then read again"
        )


class TreeTooLargeError(InvalidInputError):
    """The tree exceeds the limits of one image."""

    code = "tree_too_large"
    status = 413


class TreeInvalidError(InvalidInputError):
    """The tree has what no image can."""

    code = "tree_invalid"
    status = 422


def shown(count: int, first: Sequence[bytes]) -> str:
    """The first few paths, and how many there are besides."""
    named = ", ".join(path.decode("utf-8", "backslashreplace")[:255] for path in first[:SHOWN])
    more = count - min(len(first), SHOWN)
    return f"{named} and {more:,} more" if more > 0 else named


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
