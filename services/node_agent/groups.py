"""The groups of whoever is at the other end of the local socket."""

import socket
import struct
from typing import Final

_CREDENTIALS: Final = struct.Struct("iII")
_SO_PEERGROUPS: Final = 59
"""Of Linux since 4.13, which Python does not name."""
_MOST_GROUPS: Final = 256


def peer_groups(connection: socket.socket) -> frozenset[int]:
    """All groups of the process at the other end, as it had them when it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    own = _CREDENTIALS.unpack(raw)[2]
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:  # more than fit: then only its first one counts
        return frozenset({own})
    return frozenset({own, *struct.unpack(f"{len(more) // 4}I", more)})
