"""Marks on images that may have to go, as small files: what is left to decide survives any crash.

A mark is a random text. Each request to remove an image makes its mark another, and so does placing
it: a decision that was taken before finds a mark that it does not know, and is void.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shared.files import publishing
from shared.models import ImageId

REMOVAL: Final = ".removal"
"""The directory of marks, and of removed files for as long as somebody may have them mounted."""
LOCK: Final = ".lock"
_SUFFIX: Final = ".mark"
_UNKNOWN: Final = ".unknown"
_RANDOM: Final = 16


class Marks:
    """Those of one image directory. All of it blocks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / REMOVAL

    def mark(self, image_id: ImageId) -> str:
        """A new mark for the image, in place of any other."""
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._locked():
            return self._write(image_id)

    def read(self, image_id: ImageId) -> str | None:
        try:
            return self._path(image_id).read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def unknown_since(self, image_id: ImageId) -> float | None:
        """Since when no record stands for the image; None: it is noted now."""
        path = self._directory / f"{image_id}{_UNKNOWN}"
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.touch()
            return None

    def forget_unknown(self, image_id: ImageId) -> None:
        (self._directory / f"{image_id}{_UNKNOWN}").unlink(missing_ok=True)

    def renew(self, image_id: ImageId) -> None:
        """Void whatever is being decided about the image; the questions begin anew."""
        self.forget_unknown(image_id)
        if self.read(image_id) is None:
            return  # one that comes from now on is about the image as it is now
        with self._locked():
            if self.read(image_id) is not None:
                self._write(image_id)

    def forget(self, image_id: ImageId, mark: str) -> bool:
        """Whether it bore this mark, which is gone now."""
        if self.read(image_id) != mark:
            return False
        with self._locked():
            found = self.read(image_id) == mark
            if found:
                self._path(image_id).unlink()
            return found

    def waiting(self, seconds: float, limit: int) -> Iterator[tuple[ImageId, str]]:
        """Marks that nobody has asked about for so long, the longest first; now they are asked."""
        before = time.time() - seconds
        for path in sorted(self._directory.glob(f"*{_SUFFIX}"), key=_modified)[:limit]:
            if _modified(path) > before:
                return
            mark = self.read(path.stem)
            if mark is not None:
                with suppress(FileNotFoundError):
                    os.utime(path)
                yield path.stem, mark

    def _write(self, image_id: ImageId) -> str:
        mark = secrets.token_hex(_RANDOM)
        with publishing(self._path(image_id)) as file:
            file.write(mark.encode())
        return mark

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Of all marks, for some system calls; it dies with its owner."""
        with (self._directory / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, image_id: ImageId) -> Path:
        return self._directory / f"{image_id}{_SUFFIX}"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
