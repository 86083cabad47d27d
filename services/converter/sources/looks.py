"""What a file is, by its first bytes; and what a tar is, by its first members.

A root file system and an archive of images may both be a tar. Whatever is plainly neither is not
guessed: whoever knows says it.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.expand import expanded
from services.converter.packing.limits import Limits
from services.converter.packing.tar_bytes import TarBytes
from services.converter.packing.tar_reader import TarReader

SQUASHFS: Final = b"hsqs"
_MEMBERS: Final = 64
_LARGEST_PEEK: Final = 64 << 20
_OF_ARCHIVES: Final = re.compile(
    rb"(blobs|oci-layout|index\.json|manifest\.json|repositories"
    rb"|(sha256:)?[0-9a-f]{64}(\.tar|\.json|\.tar\.gz)?)"
)
_OF_ROOTS: Final = frozenset(
    b"bin boot dev etc home lib lib32 lib64 libx32 media mnt nix opt proc root run sbin srv sys tmp"
    b" usr var .dockerenv".split()
)

Look = Literal["root", "archive"]


def look_of_tar(fd: int) -> Look | None:
    """By the first name that tells; None if none does, or if it is no tar. Blocks."""
    try:
        reader = TarReader(TarBytes(partial(next, _beginning(fd), b"")), Limits())
        for _, member in zip(range(_MEMBERS), reader, strict=False):
            top = member.path.partition(b"/")[0]
            if top in _OF_ROOTS:
                return "root"
            if _OF_ARCHIVES.fullmatch(top):
                return "archive"
    except (LayerInvalidError, _EnoughError):
        return None
    except OSError:
        raise
    except Exception:  # noqa: BLE001 - each codec has errors of its own; who reads it tells of them
        return None
    return None


def _beginning(fd: int) -> Iterator[bytes]:
    left = _LARGEST_PEEK
    for chunk in expanded(_Blob(fd)):
        yield chunk
        left -= len(chunk)
        if left < 0:
            raise _EnoughError


class _EnoughError(Exception):
    """Nobody's first members are so large."""


class _Blob:
    """The beginning of a file, as decompressors read it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def peek(self, size: int) -> bytes:
        return os.pread(self._fd, size, self._at)

    def read(self, size: int = 512 << 10, /) -> bytes:
        if self._at > _LARGEST_PEEK:
            raise _EnoughError
        piece = os.pread(self._fd, size, self._at)
        self._at += len(piece)
        return piece
