"""What every way of mounting an image has in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

How = Literal["loop", "squashfuse", "unpack"]


@dataclass(frozen=True, slots=True)
class Source:
    """The file of an image. One in this node's cache is never changed, and near."""

    path: Path
    cached: bool = False


class Mounter(Protocol):
    """One way of making an image's files appear in a directory."""

    how: How
    codecs: frozenset[str]
    """The compressions that it can read, found out by trying."""

    def mount(self, image: Source, target: Path) -> None:
        """Make the image appear at `target`, an empty directory; MountFailedError. Blocks."""
