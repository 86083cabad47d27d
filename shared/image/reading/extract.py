"""Unpack an image into a directory as anybody: never more privileged than its caller.

An image's modes are for a mount that nobody can write to. What is unpacked can be written to, so
nobody but its owner may: not even where the image says so, as for /tmp.
"""

import errno
import os
from pathlib import Path
from typing import Final

from shared.errors import InvalidInputError
from shared.image import kinds
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.reading.inode import Inode
from shared.image.reading.reader import Found, SquashImage

_MAX_EXTRACTED: Final = 1 << 40
# No set-id bits, and nothing that others than the owner could write to.
_KEPT_MODE: Final = 0o1755
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def extract(path: Path, into: Path, *, max_bytes: int = _MAX_EXTRACTED) -> None:
    """Unpack the image at `path` into `into`, which must not exist yet or be empty. Blocks.

    Owners become the caller's; devices, sockets and extended attributes are left out; directories
    stay accessible to their owner. `max_bytes` bounds the sizes of all files, holes included.
    Nothing outside of `into` is touched, whatever the image says, and nobody else gets in before
    all is done. After an error the caller removes what there is.
    """
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    into.chmod(0o700)
    if any(into.iterdir()):
        message = f"{into} is not empty: an image needs a directory of its own"
        raise InvalidInputError(message)
    with SquashImage(path) as image:
        try:
            _Extraction(image, into, max_bytes).run()
        except FileExistsError as exc:
            raise ImageCorruptError("the image has two files of the same name") from exc


class _Extraction:
    """Every name is created new, never opened or replaced: nothing leads out of a directory."""

    def __init__(self, image: SquashImage, root: Path, max_bytes: int) -> None:
        self._image = image
        self._root = root
        self._max_bytes = self._left = max_bytes
        # By reference, of files with several names: the latest one that was made as a file.
        self._linked: dict[int, Found] = {}
        # The directories that are being filled, from the root down.
        self._open: list[Found] = []

    def run(self) -> None:
        for found in self._image.walk():
            while self._open and self._open[-1].path != found.parent:
                self._close_directory()
            if found.inode.kind == kinds.DIRECTORY:
                self._make_directory(found)
            elif found.inode.kind == kinds.SYMLINK:
                self._make_symlink(found)
            elif found.inode.kind in {kinds.FILE, kinds.FIFO}:
                self._make_file(found)
        while self._open:
            self._close_directory()

    def _place(self, found: Found) -> Path:
        return self._root / os.fsdecode(found.path)

    def _make_directory(self, found: Found) -> None:
        if found.name:
            self._place(found).mkdir(0o700)
        self._open.append(found)

    def _close_directory(self) -> None:
        """Not before, because what is made in a directory changes its time."""
        found = self._open.pop()
        target = self._place(found)
        target.chmod(found.inode.mode & _KEPT_MODE | 0o700)
        os.utime(target, (found.inode.mtime,) * 2)

    def _make_symlink(self, found: Found) -> None:
        target = self._place(found)
        target.symlink_to(os.fsdecode(found.inode.target))
        os.utime(target, (found.inode.mtime,) * 2, follow_symlinks=False)

    def _make_file(self, found: Found) -> None:
        inode, target = found.inode, self._place(found)
        if inode.links > 1:
            if self._link(inode, target):
                return
            self._linked[inode.reference] = found
        if inode.kind == kinds.FIFO:
            os.mkfifo(target, 0o600)
        else:
            self._write_file(inode, target)
        target.chmod(inode.mode & _KEPT_MODE | 0o400)
        os.utime(target, (inode.mtime,) * 2)

    def _link(self, inode: Inode, target: Path) -> bool:
        first = self._linked.get(inode.reference)
        if first is None:
            return False
        try:
            os.link(self._place(first), target, follow_symlinks=False)
        except OSError as exc:
            # A file system has its own limit of names per file: then begins another file.
            if exc.errno != errno.EMLINK:
                raise
            return False
        return True

    def _write_file(self, inode: Inode, target: Path) -> None:
        self._left -= inode.size
        if self._left < 0:
            raise ImageUnsupportedError(
                f"the image's files are larger than the {self._max_bytes:,} bytes that may be "
                "extracted here"
            )
        with os.fdopen(os.open(target, _CREATE, 0o600), "wb") as file:
            for offset, block in self._image.data(inode):
                file.seek(offset)
                file.write(block)
            file.truncate(inode.size)
