"""What layers turned out to be that nobody had promised a digest of: parts of trees, plain tars.

stamps/<s[:2]>/<stamp>.json. A stamp says what the layer looked like before it was read, and whose
rights it was read with. What is missing or damaged says nothing, and the layer is read again.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shared.files import publishing
from shared.models import Digest, Sha256, Tolerant
from shared.store.locks import mark_used

_MOST_BYTES: Final = 4096
_DIRECTORY: Final = "stamps"


class Stamped(Tolerant):
    """What was found behind a stamp."""

    diff_id: Digest


def stamp_path(root: Path, stamp: Sha256) -> Path:
    return root / _DIRECTORY / stamp[:2] / f"{stamp}.json"


def read_stamp(root: Path, stamp: Sha256) -> Digest | None:
    """The diff id; it then counts as just used. Blocks."""
    path = stamp_path(root, stamp)
    try:
        with path.open("rb") as file:
            found = Stamped.model_validate_json(file.read(_MOST_BYTES))
    except (OSError, ValidationError):
        return None
    mark_used(path)
    return found.diff_id


def note_stamp(root: Path, stamp: Sha256, diff_id: Digest) -> None:
    """Remember it. Blocks."""
    with publishing(stamp_path(root, stamp)) as file:
        file.write(Stamped(diff_id=diff_id).model_dump_json().encode())


def forget_stamps(root: Path, idle: float) -> int:
    """Remove those that were last used before `idle`; returns how many. Blocks."""
    removed = 0
    for path in (root / _DIRECTORY).glob("??/*.json"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < idle:
                path.unlink()
                removed += 1
    return removed
