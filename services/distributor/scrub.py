"""Reads the images of a directory again and again, so that damage is found before a job meets it.

A pass goes through all images in the order of their names, and remembers how far it has come:
whoever takes the lock next goes on from there, after a restart or on another machine.
"""

import os
import re
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from services.distributor.sidecars import read_sidecar
from shared.files import publishing
from shared.image.errors import ImageCorruptError
from shared.image.making.verify import verify_slowly
from shared.logging import get_logger
from shared.models import ImageId, Tolerant
from shared.store.inventory import PREFIXES
from shared.store.locks import release, try_lock

log = get_logger(__name__)

LOCK: Final = ".scrub.lock"
STATE: Final = ".scrub"
# What is read twice at worst when a scrubber dies.
_SAVE_SECONDS: Final = 5.0
_STEP: Final = 8 << 20
_IMAGE: Final = ".squashfs"
_NAME: Final = re.compile(rf"([0-9a-f]{{64}}){re.escape(_IMAGE)}")


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image that is not what its sidecar says, or cannot be read."""

    image_id: ImageId
    fault: str


class ScrubState(Tolerant):
    """How far the latest pass is; times are those of the file system's clock."""

    v: Literal[1] = 1
    began: Annotated[float, Field(ge=0)]
    last: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    """The last image that was read."""
    done: bool = False


Steps = Generator[int | Suspect, None, bool]


def scrub(directory: Path, every: float) -> Steps:
    """Go on with the pass that is due, if one is; `every` is the time between two begins.

    Says how many bytes it has just read, so that its caller can be as slow as it likes, and what is
    to be looked at. Ends with False if another scrubber is at it. Each step blocks.
    """
    lock_path = directory / LOCK
    lock = try_lock(lock_path, create=True)
    if lock is None:
        return False
    try:
        os.utime(lock.fileno())
        now = os.fstat(lock.fileno()).st_mtime
        state = read_state(directory)
        # A pass that began in times to come was begun by a clock that was wrong.
        if state is None or abs(now - state.began) >= every:
            state = ScrubState(began=now)
        if not state.done:
            yield from _pass(directory, state)
    finally:
        release(lock, lock_path)
    return True


def read_state(directory: Path) -> ScrubState | None:
    """None before the first pass."""
    try:
        return ScrubState.model_validate_json((directory / STATE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _pass(directory: Path, state: ScrubState) -> Generator[int | Suspect, None, None]:
    saved = time.monotonic()
    for image_id in _after(directory, state.last):
        yield from _read(directory / f"{image_id}{_IMAGE}")
        if time.monotonic() - saved > _SAVE_SECONDS:
            _save(directory, state.model_copy(update={"last": image_id}))
            saved = time.monotonic()
    _save(directory, ScrubState(began=state.began, done=True))


def _after(directory: Path, last: str) -> Iterator[ImageId]:
    """Sorted by parts: all names at once would hold up everybody else for a moment."""
    by_prefix: dict[str, list[ImageId]] = {prefix: [] for prefix in PREFIXES}
    with os.scandir(directory) as entries:
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found is not None and found[1] > last:
                by_prefix[found[1][:2]].append(found[1])
    for prefix in PREFIXES:
        yield from sorted(by_prefix.pop(prefix))


def _read(image: Path) -> Generator[int | Suspect, None, None]:
    sidecar = read_sidecar(image)
    if sidecar is None:
        return  # not ours, or gone meanwhile
    read = 0
    try:
        for piece in verify_slowly(image, sidecar.recipe):
            read += piece
            if read >= _STEP:
                yield read
                read = 0
    except FileNotFoundError:
        return
    except (ImageCorruptError, OSError) as exc:
        yield Suspect(image.stem, str(exc))
    yield read


def _save(directory: Path, state: ScrubState) -> None:
    with publishing(directory / STATE) as file:
        file.write(state.model_dump_json().encode())
