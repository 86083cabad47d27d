"""The file that an image is made in, written past the page cache where its file system can.

An image is written once and read elsewhere: copies of it in this machine's memory would only take
the place of packs, and giving out and filling their pages costs more than all the rest.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from shared.image.kinds import ALIGNMENT
from shared.image.making.weave import write_all
from shared.linux import start_writing


class Target:
    """Takes pieces at any place; several threads may write at once."""

    def __init__(self, fd: int, direct: int | None) -> None:
        self.fd = fd
        self._direct = direct

    @classmethod
    @contextmanager
    def over(cls, fd: int) -> Iterator[Self]:
        """Over an open file, which stays open."""
        try:
            # A description of its own: the flag is not the caller's.
            direct = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            yield cls(fd, None)
            return
        try:
            yield cls(fd, direct)
        finally:
            os.close(direct)

    def write(self, piece: memoryview, offset: int) -> None:
        """`piece` lies at the beginning of a page of memory."""
        whole = len(piece) - len(piece) % ALIGNMENT
        done = whole if not offset % ALIGNMENT and self._past_cache(piece[:whole], offset) else 0
        if done == len(piece):
            return
        write_all(self.fd, piece[done:], offset + done)
        with suppress(OSError):  # only a hint: what is wrong shows when the file is synced
            start_writing(self.fd, offset + done, offset + len(piece))

    def _past_cache(self, piece: memoryview, offset: int) -> bool:
        direct = self._direct
        if direct is None:
            return False
        try:
            write_all(direct, piece, offset)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            self._direct = None  # taken when it was opened, and yet not done
            return False
        return True
