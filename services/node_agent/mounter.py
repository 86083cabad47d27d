"""What every way of mounting an image has in common."""

from pathlib import Path
from typing import Literal, Protocol

How = Literal["loop", "squashfuse", "unpack"]


class Mounter(Protocol):
    """One way of making an image's files appear in a directory."""

    how: How
    codecs: frozenset[str]
    """The compressions that it can read, found out by trying."""

    def mount(self, image: Path, target: Path) -> None:
        """Make the image appear at `target`, an empty directory; MountFailedError. Blocks."""
