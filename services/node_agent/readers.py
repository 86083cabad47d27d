"""Who may use an image of this node: what its sidecar says, read anew at each request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shared.events import Readers
from shared.logging import get_logger
from shared.models import Tolerant

log = get_logger(__name__)

_MOST_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, as the kernel says."""

    uid: int
    gids: frozenset[int]


SOMEBODY: Final = User((1 << 32) - 1, frozenset())
"""No user has this id: what may be read by somebody may be read by everybody."""


class _Sidecar(Tolerant):
    readers: Readers | None = None


def may_read(sidecar: Path, user: User) -> bool:
    """Without a sidecar that can be read an image is nobody's. Blocks."""
    try:
        with sidecar.open("rb") as file:
            readers = _Sidecar.model_validate_json(file.read(_MOST_BYTES)).readers
    except FileNotFoundError:
        return False
    except (OSError, ValidationError) as exc:
        log.warning("sidecar_unreadable", sidecar=str(sidecar), error=type(exc).__name__)
        return False
    if readers is None:
        return True
    return user.uid in readers.uids or not user.gids.isdisjoint(readers.gids)
