"""Opening what is below a directory, step by step: no symlink is followed on any of them."""

import os
from typing import Final

_ON_THE_WAY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Whatever has taken a file's place by now, opening it must not wait for anybody.
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_below(root: int, path: bytes, flags: int = DIRECTORY) -> int:
    """A descriptor of `path` below the directory `root`; b"" is the root itself."""
    if not path:
        return os.open(b".", flags, dir_fd=root)
    *parents, name = path.split(b"/")
    at = root
    try:
        for parent in parents:
            following = os.open(parent, _ON_THE_WAY, dir_fd=at)
            if at != root:
                os.close(at)
            at = following
        return os.open(name, flags, dir_fd=at)
    finally:
        if at != root:
            os.close(at)
