"""Where a request came from: a network, or a process of this machine."""

import socket

from aiohttp import web

from shared.http.peers import Peer, peer


def from_network(request: web.Request) -> bool:
    """Whether it surely did: an address there is a tuple, and a UNIX socket's is its name."""
    return isinstance(request.get_extra_info("sockname"), tuple)


def peer_of(request: web.Request) -> Peer | None:
    """None where the request came over a network, or its sender has hung up."""
    connection = request.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    return peer(connection)
