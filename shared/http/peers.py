"""Who is at the other end of a UNIX socket: the kernel says, as it was when they connected."""

import socket
import struct
from dataclasses import dataclass
from typing import Final

_CREDENTIALS: Final = struct.Struct("iII")
_SO_PEERGROUPS: Final = 59
"""Of Linux since 4.13, which Python does not name."""
_MOST_GROUPS: Final = 256


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, with its effective ids at that moment."""

    pid: int
    uid: int
    gid: int


def peer(connection: socket.socket) -> Peer:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(raw))


def peer_groups(connection: socket.socket) -> frozenset[int]:
    """All groups of the process."""
    own = peer(connection).gid
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:  # more than fit: then only its first one counts
        return frozenset({own})
    return frozenset({own, *struct.unpack(f"{len(more) // 4}I", more)})
