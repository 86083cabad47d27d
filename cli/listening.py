"""Who listens at a port of this machine: where the gateway does not, anybody may in its place."""

import os
import socket
from pathlib import Path
from typing import Final

from shared.http.peers import peer

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENS: Final = "0A"
_LOOK_SECONDS: Final = 5.0


def strangers_at(port: int, served_by: Path) -> frozenset[int]:
    """The users who listen there and are neither root, nor we, nor whoever serves that socket."""
    return _listeners(port) - {0, os.geteuid(), _server(served_by)}


def _listeners(port: int) -> frozenset[int]:
    """As the kernel tells it."""
    found = set[int]()
    for table in _TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # a machine without IPv6 has no such table
            continue
        for _, local, _, state, _, _, _, uid, *_ in map(str.split, lines):
            if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                found.add(int(uid))
    return frozenset(found)


def _server(path: Path) -> int | None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_LOOK_SECONDS)
        try:
            connection.connect(str(path))
        except OSError:
            return None
        return peer(connection).uid
