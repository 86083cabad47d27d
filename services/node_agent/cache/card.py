"""The card of a copy: a small file beside it, written when every byte of it had been checked."""

import os
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from shared.files import publishing
from shared.image.recipe import Recipe
from shared.models import Tolerant

SUFFIX: Final = ".json"
_MOST_BYTES: Final = 8 << 20


class Card(Tolerant):
    """What the copy is, and which file it was when it was checked."""

    v: Literal[1] = 1
    recipe: Recipe
    inode: int
    mtime_ns: int

    def is_of(self, file: os.stat_result) -> bool:
        """Whether the file has been left alone since; if not, its bytes have to be read again."""
        return (file.st_ino, file.st_mtime_ns) == (self.inode, self.mtime_ns)


def write_card(path: Path, recipe: Recipe, file: os.stat_result) -> None:
    card = Card(recipe=recipe, inode=file.st_ino, mtime_ns=file.st_mtime_ns)
    with publishing(path) as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(card.model_dump_json().encode())


def read_card(path: Path) -> Card | None:
    """None: there is none that can be read. Blocks."""
    try:
        with path.open("rb") as stream:
            return Card.model_validate_json(stream.read(_MOST_BYTES))
    except (OSError, ValidationError):
        return None
