"""What stands in an image directory, as far as it is ours, and what should and does not.

An image is ours if our sidecar is beside it: others may keep files in the same directory.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.distributor.marks import Marks
from services.distributor.removal import mark_if_there
from shared.errors import DrayError
from shared.events import ExpectedImage
from shared.files import file_system_time
from shared.models import ImageId

STATE: Final = ".inventory"
"""Changed by each pass that finds something of ours: so the file system is mounted here."""
_HEX: Final = frozenset("0123456789abcdef")
_NAME: Final = 64


class ImageDirectoryAbsentError(DrayError):
    """An image directory in which nothing of ours was ever seen."""

    code = "image_directory_absent"
    status = 503
    retryable = True


def ours(directory: Path, min_age: float) -> list[ImageId]:
    """Images with our sidecars, or sidecars alone, that are so old. Blocks: reads all names."""
    before = file_system_time(directory) - min_age
    found: list[ImageId] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            image_id, _, kind = entry.name.partition(".")
            if kind != "json" or len(image_id) != _NAME or not _HEX.issuperset(image_id):
                continue
            try:
                if entry.stat().st_mtime <= before:
                    found.append(image_id)
            except FileNotFoundError:
                continue
    if found:
        (directory / STATE).touch()
    return found


def files_and_bytes(directory: Path) -> tuple[int, int]:
    """How many images stand there, the youngest included, and their bytes. Blocks."""
    sizes: list[int] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            image_id, _, kind = entry.name.partition(".")
            if kind == "squashfs" and len(image_id) == _NAME and _HEX.issuperset(image_id):
                with suppress(FileNotFoundError):
                    sizes.append(entry.stat().st_size)
    return len(sizes), sum(sizes)


def seconds_since_last(directory: Path) -> float | None:
    """Since somebody last took stock; None where nobody did. Blocks."""
    try:
        return file_system_time(directory) - (directory / STATE).stat().st_mtime
    except FileNotFoundError:
        return None


def batches(images: list[ImageId], size: int) -> Iterator[tuple[ImageId, ...]]:
    for start in range(0, len(images), size):
        yield tuple(images[start : start + size])


def require_present(directory: Path) -> None:
    """ImageDirectoryAbsentError where nobody has ever found anything of ours. Blocks."""
    if not (directory / STATE).exists():
        raise ImageDirectoryAbsentError(
            f"{directory} has nothing of what the catalog says: is its file system mounted here?"
        )


def not_as_expected(
    directory: Path, images: Iterable[ExpectedImage], min_age: float
) -> list[ImageId]:
    """What is missing, of another size, or without its sidecar. Blocks: some system calls each.

    ImageDirectoryAbsentError where nobody has ever found anything: an empty mount point is no
    proof.
    """
    require_present(directory)
    before = file_system_time(directory) - min_age
    return [
        each.image_id
        for each in images
        if each.ready_at.timestamp() <= before and not _is_there(directory, each)
    ]


def _is_there(directory: Path, expected: ExpectedImage) -> bool:
    image = directory / f"{expected.image_id}.squashfs"
    try:
        return image.stat().st_size == expected.size and image.with_suffix(".json").exists()
    except FileNotFoundError:
        return False


def note_unknown(directory: Path, images: Iterable[ImageId], grace: float) -> tuple[int, int]:
    """What no record stands for is marked for removal after a grace; the marked, and the new ones.

    Blocks for some system calls each.
    """
    marks = Marks(directory)
    now = file_system_time(directory)
    marked, fresh = 0, 0
    for image_id in images:
        since = marks.unknown_since(image_id)
        fresh += since is None
        since = now if since is None else since
        # A mark that is there already is being decided about.
        if now - since >= grace and marks.read(image_id) is None:
            marked += mark_if_there(directory, image_id) is not None
    return marked, fresh
