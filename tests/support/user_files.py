"""Files of a user's, and what was opened of them."""

import os
from pathlib import Path

from tests.support.imports import owned
from tests.support.private_site import ALICE


def content(fd: int) -> bytes:
    try:
        return os.pread(fd, 100, 0)
    finally:
        os.close(fd)


def made(path: Path, uid: int = ALICE, mode: int = 0o600, text: bytes = b"hers") -> Path:
    path.write_bytes(text)
    return owned(path, uid, mode)
