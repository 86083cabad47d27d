"""Who is at the other end of a UNIX socket: the kernel says."""

import socket
import struct
from dataclasses import dataclass
from typing import Final

from aiohttp import web

_CREDENTIALS: Final = struct.Struct("=iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, with its effective ids at that moment."""

    pid: int
    uid: int
    gid: int


def from_network(request: web.Request) -> bool:
    """Whether it surely did: an address there is a tuple, and a UNIX socket's is its name."""
    return isinstance(request.get_extra_info("sockname"), tuple)


def peer_of(request: web.Request) -> Peer | None:
    """None where the request came over a network, or its sender has hung up."""
    connection = request.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(raw))
