"""A UNIX socket under a name that at most one living process serves.

A lock beside the socket tells a dead owner's leftover from a living one's: binding alone would
take the name away from whoever serves it.
"""

import fcntl
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import ConfigError

MAX_PATH_BYTES: Final = 107
BACKLOG: Final = 512
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class LocalSocket:
    """Listening; everybody on the machine may connect, and the kernel says who does.

    Its owner removes the name before `close` gives the lock back.
    """

    socket: socket.socket
    path: Path
    _lock: int

    def close(self) -> None:
        self.socket.close()
        os.close(self._lock)


def listen_locally(path: Path, key: str) -> LocalSocket:
    """`key` is the setting that names the socket, for whoever reads the error."""
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise ConfigError(
            f"{key}: the socket's path {path} has {length} bytes, and Linux allows "
            f"{MAX_PATH_BYTES}: choose a shorter one"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(
            path.with_name(path.name + _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as exc:
        raise ConfigError(f"{key}: cannot listen on {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return LocalSocket(_bound(path), path, lock)
    except BlockingIOError as exc:
        os.close(lock)
        raise ConfigError(
            f"{key}: another process of this machine listens on {path}: give each its own"
        ) from exc
    except OSError as exc:
        os.close(lock)
        raise ConfigError(f"{key}: cannot listen on {path}: {exc.strerror}") from exc


def _bound(path: Path) -> socket.socket:
    if path.exists() and stat.S_ISSOCK(path.lstat().st_mode):
        path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(os.fspath(path))
        path.chmod(0o666)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
