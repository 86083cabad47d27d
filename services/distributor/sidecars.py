"""The two small files beside each image: `<id>.meta` for Shifter's runtime, `<id>.json` for ours.

Shifter's udiRoot reads `.meta` line by line: one `ENV` line for each variable, lists of words as
Python writes them, ids with commas between them, the separator ": ", and it knows no other keys. A
variable or work directory that would break its line cannot be said in this format and is left to
`<id>.json`.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from shared.events import Readers
from shared.files import publishing
from shared.image.recipe import Recipe
from shared.layout import PlacedLayout
from shared.logging import get_logger
from shared.models import Bytes, Tolerant

log = get_logger(__name__)

_NO_USER: Final = (1 << 32) - 1
FOR_EVERYBODY: Final = 0o644
FOR_ITS_READERS: Final = 0o600
"""The agent of a node reads it for them, and asks who they are."""


class Sidecar(Tolerant):
    """`<id>.json`: enough to check an image, to make it again, and to run something in it."""

    v: int = 1
    recipe: Recipe
    readers: Readers | None = None
    """Who may use it; None: everybody."""
    revision: Bytes = 0
    """Of the gateway's word on that; 0: only the placement has said it."""
    layout: PlacedLayout | None = None
    """Of the file; None where files have none."""
    hot: bool = False
    """Whether it was made with what the settings have for hot images."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use an image, and how new that is."""

    readers: Readers | None = None
    revision: int = 0

    @property
    def mode(self) -> int:
        return FOR_EVERYBODY if self.readers is None else FOR_ITS_READERS

    @classmethod
    def of(cls, sidecar: Sidecar) -> Self:
        return cls(sidecar.readers, sidecar.revision)


EVERYBODY: Final = Access()


@dataclass(frozen=True, slots=True)
class Made:
    """How the file was made."""

    layout: PlacedLayout | None = None
    hot: bool = False

    @classmethod
    def of(cls, sidecar: Sidecar | None) -> Self:
        return cls() if sidecar is None else cls(sidecar.layout, sidecar.hot)


_AS_USUAL: Final = Made()


def placed_for(image: Path, readers: Readers | None) -> Access:
    """Whom a placement for these readers leaves the image to.

    What the gateway has said of all who have it counts; it says so again after each placement.
    """
    known = read_sidecar(image)
    if known is not None and known.revision:
        return Access.of(known)
    if known is None or not image.is_file():
        return Access(readers)
    if known.readers is None or readers is None:
        return EVERYBODY
    uids = dict.fromkeys((*known.readers.uids, *readers.uids))
    gids = dict.fromkeys((*known.readers.gids, *readers.gids))
    return Access(Readers(uids=tuple(uids), gids=tuple(gids)))


def read_sidecar(image: Path) -> Sidecar | None:
    try:
        return Sidecar.model_validate_json(image.with_suffix(".json").read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        log.warning("sidecar_unreadable", image=image.stem)
        return None


def write_sidecars(
    image: Path, recipe: Recipe, access: Access = EVERYBODY, made: Made = _AS_USUAL
) -> None:
    """Of an image that is there already the mode, too. What says it is done comes last."""
    meta = shifter_meta(recipe, access.readers).encode()
    _write(image.with_suffix(".meta"), meta, access.mode)
    with suppress(FileNotFoundError):
        image.chmod(access.mode)
    sidecar = Sidecar(
        recipe=recipe,
        readers=access.readers,
        revision=access.revision,
        layout=made.layout,
        hot=made.hot,
    )
    _write(image.with_suffix(".json"), sidecar.model_dump_json().encode(), access.mode)


def shifter_meta(recipe: Recipe, readers: Readers | None = None) -> str:
    config = recipe.config
    lines = ["FORMAT: squashfs"]
    if readers is not None:
        lines += _acls(readers)
    if config.entrypoint:
        lines.append(f"ENTRY: {list(config.entrypoint)!r}")
    if config.cmd:
        lines.append(f"CMD: {list(config.cmd)!r}")
    if config.workdir and _fits_a_line(config.workdir):
        lines.append(f"WORKDIR: {config.workdir}")
    lines += [f"ENV: {variable}" for variable in config.env if _fits_a_line(variable)]
    return "\n".join(lines) + "\n"


def _acls(readers: Readers) -> Iterator[str]:
    """Without brackets: what is no number is passed over, and a list without any is fatal there.

    No line at all would mean everybody.
    """
    uids = readers.uids if readers.uids or readers.gids else (_NO_USER,)
    for key, ids in (("USERACL", uids), ("GROUPACL", readers.gids)):
        if ids:
            yield f"{key}: {','.join(map(str, ids))}"


def _fits_a_line(text: str) -> bool:
    """A backslash at its end would make the next line a part of it."""
    return not text.rstrip().endswith("\\") and not any(each in text for each in "\n\r\0")


def _write(path: Path, content: bytes, mode: int) -> None:
    with publishing(path) as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
