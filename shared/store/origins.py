"""Where the layers of packs came from: a small file for each pack, beside the packs.

origins/<k[:2]>/<key>.json. What is missing or cannot be read says nothing, and then the layer is
read again; so two that write at once, or a crash, cost a transfer and never a secret.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError

from shared.files import publishing
from shared.image.recipe import PackKey
from shared.models import Digest, Tolerant

MOST_BLOBS: Final = 64
_MOST_BYTES: Final = 64 << 10
_DIRECTORY: Final = "origins"


class Origin(Tolerant):
    """Who gave a layer: everybody could have it, or users had it from registries, as blobs."""

    public: bool = False
    blobs: Annotated[tuple[tuple[str, Digest], ...], Field(max_length=MOST_BLOBS)] = ()


NOWHERE: Final = Origin()


def origin_path(root: Path, key: PackKey) -> Path:
    return root / _DIRECTORY / key[:2] / f"{key}.json"


def read_origin(root: Path, key: PackKey) -> Origin:
    """What is known; nothing, if that is damaged. Blocks."""
    try:
        with origin_path(root, key).open("rb") as file:
            return Origin.model_validate_json(file.read(_MOST_BYTES))
    except (OSError, ValidationError):
        return NOWHERE


def note_origin(root: Path, key: PackKey, origin: Origin) -> None:
    """Remember it, beside what is known. Blocks."""
    known = read_origin(root, key)
    if known.public:
        return
    if origin.public:
        merged = Origin(public=True)  # then nobody asks any more who else had it
    else:
        blobs = dict.fromkeys((*known.blobs, *origin.blobs))
        merged = Origin(blobs=tuple(blobs)[-MOST_BLOBS:])
    if merged != known:
        with publishing(origin_path(root, key)) as file:
            file.write(merged.model_dump_json().encode())


def forget_origin(root: Path, key: PackKey) -> None:
    """The pack is gone. Blocks."""
    origin_path(root, key).unlink(missing_ok=True)


def forget_origins_without(root: Path, packs: frozenset[str] | set[str], idle: float) -> int:
    """Remove what is known of packs that are not there, and were last written before `idle`."""
    removed = 0
    for path in (root / _DIRECTORY).glob("??/*.json"):
        with suppress(FileNotFoundError):
            if path.stem not in packs and path.stat().st_mtime < idle:
                path.unlink()
                removed += 1
    return removed
