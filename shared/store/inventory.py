"""What the pack store holds, told by its directories and recipes: no pack is read."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from shared.models import Sha256
from shared.store.damage import set_aside
from shared.store.store import Held, PackStore

Kind = Literal["packs", "tables", "recipes"]
_NAMES: Final[dict[Kind, re.Pattern[str]]] = {
    "packs": re.compile(r"([0-9a-f]{64})\.pack"),
    "tables": re.compile(r"([0-9a-f]{64})"),
    "recipes": re.compile(r"([0-9a-f]{64})\.json"),
}
PREFIXES: Final = tuple(f"{number:02x}" for number in range(256))


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of the store: its size, and when it was last used."""

    kind: Kind
    path: str
    size: int
    used_ns: int

    @property
    def used(self) -> float:
        return self.used_ns / 1e9


def stored(root: Path, kind: Kind) -> Iterator[tuple[Sha256, Stored]]:
    """All files of a kind, by their names. Others may come and go meanwhile."""
    for prefix in PREFIXES:
        yield from stored_below(root, kind, prefix)


def stored_below(root: Path, kind: Kind, prefix: str) -> Iterator[tuple[Sha256, Stored]]:
    try:
        with os.scandir(root / kind / prefix) as entries:
            for entry in entries:
                name = _NAMES[kind].fullmatch(entry.name)
                if name is None or not name[1].startswith(prefix):
                    continue
                try:
                    state = entry.stat()
                except FileNotFoundError:
                    continue
                yield name[1], Stored(kind, entry.path, state.st_size, state.st_mtime_ns)
    except FileNotFoundError:
        return


def what_it_holds(store: PackStore, recipe: Stored) -> Held | None:
    """What this recipe keeps in the store; None if it is gone, or damaged."""
    path = Path(recipe.path)
    try:
        with path.open("rb") as file:
            seen = os.fstat(file.fileno())
            return Held.model_validate_json(file.read())
    except FileNotFoundError:
        return None
    except ValidationError:
        set_aside(store.root, path, seen, "it is no recipe")
        return None
