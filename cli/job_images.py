"""What a job carries along in its environment about its images.

`dray hook submit` writes it; the scheduler's hooks, some of which never ask a gateway, read it.
A user can write anything there, so it is read as what a stranger says.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from cli.errors import UsageError

if TYPE_CHECKING:
    from cli.agent import PinnedImage

IMAGE: Final = "DRAY_IMAGE"
"""As the user wrote it, perhaps several."""
IMAGE_ID: Final = "DRAY_IMAGE_ID"
"""The first one's id."""
IMAGES: Final = "DRAY_IMAGES"
"""Each as id,digest,size, with semicolons between: enough to mount them without a gateway."""
PULLS: Final = "DRAY_PULLS"
"""Where pulls had not ended at submission: their ids, and those of the images that were READY, in
the order of the images, with semicolons between."""
SYSTEM: Final = "DRAY_SYSTEM"
VOLUMES: Final = "DRAY_VOLUMES"
VOLUME_PATHS: Final = "DRAY_VOLUME_PATHS"
"""The same with the user's variables put in."""
MODULES: Final = "DRAY_MODULES"
ALL: Final = (IMAGE, IMAGE_ID, IMAGES, PULLS, SYSTEM, VOLUMES, VOLUME_PATHS, MODULES)

MOST: Final = 32
"""Images of one job, as the gateway has it."""
_PINNED: Final = re.compile(r"([0-9a-f]{64}),([0-9a-f]{64}),([0-9]{1,18})")
_PULL: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def written(images: "Iterable[PinnedImage]") -> str:
    return ";".join(f"{image.image_id},{image.content_digest},{image.size}" for image in images)


def read_images(text: str) -> "tuple[PinnedImage, ...]":
    from cli.agent import PinnedImage  # noqa: PLC0415 - a rank may do without what it takes

    return tuple(PinnedImage(*found) for found in read_pinned(text))


def read_pinned(text: str) -> tuple[tuple[str, str, int], ...]:
    """The id, the digest of the content and the size of each."""
    found = []
    for part in _parts(text, IMAGES):
        match = _PINNED.fullmatch(part)
        if match is None:
            raise UsageError(f"{IMAGES} holds {part!r}, which is not id,digest,size")
        found.append((match[1], match[2], int(match[3])))
    return tuple(found)


def read_pulls(text: str) -> tuple[str, ...]:
    parts = _parts(text, PULLS)
    for part in parts:
        if not _PULL.fullmatch(part):
            raise UsageError(f"{PULLS} holds {part!r}, which is no pull's id")
    return tuple(parts)


def read_names(text: str) -> list[str]:
    """Of what the user wrote, each once."""
    names = (name.strip() for name in text.replace(";", ",").split(","))
    return list(dict.fromkeys(name for name in names if name))


def _parts(text: str, name: str) -> list[str]:
    parts = [part for part in text.split(";") if part]
    if len(parts) > MOST:
        raise UsageError(f"{name} names {len(parts)} images, and a job may have {MOST}")
    return parts
