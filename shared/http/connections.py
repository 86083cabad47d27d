"""How many connections one user may have to a server, and how long without a request.

Everybody may connect, and connections are descriptors of ours: without a bound one user could
take them all, and with them the service from everybody else.
"""

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

from shared.api import Problem
from shared.http.peers import peer
from shared.logging import get_logger

log = get_logger(__name__)

MOST_PER_USER: Final = 512
"""Every rank of a full node may ask at once, and waits on its connection for the answer."""
_DESCRIPTORS: Final = 65536
_USERS: Final = 4
_REFUSAL: Final = Problem(
    title="Too Many Requests",
    status=429,
    detail="you have too many open connections here: close some, or try again later",
    code="too_many_connections",
)
_BODY: Final = _REFUSAL.model_dump_json().encode()
_REFUSED: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
) % (len(_BODY), _BODY)


def whose(connection: socket.socket) -> Hashable:
    """The user's id on this machine, or the other machine's address."""
    if connection.family == socket.AF_UNIX:
        return peer(connection).uid
    try:
        return str(connection.getpeername()[0])
    except OSError:  # gone already
        return None


def room_per_user() -> int:
    """A share of this process's descriptors, of which it takes what it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(MOST_PER_USER, wanted // _USERS)


@dataclass(eq=False, slots=True)
class Connections:
    """The open connections of all users. `free` users may have any number."""

    limit: int
    free: frozenset[Hashable]
    seconds: float
    """From the connection to its first request."""
    _users: Counter[Hashable] = field(default_factory=Counter)
    _waits: dict[asyncio.BaseTransport, asyncio.TimerHandle] = field(default_factory=dict)

    def guarded(self, serve: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """A factory of protocols like `serve`, for those connections that are let in."""
        return lambda: _Guarded(self, serve)

    def arrived(self, transport: asyncio.BaseTransport | None) -> None:
        """The request of this connection is complete: from now on it may take its time."""
        if transport is not None and (wait := self._waits.pop(transport, None)) is not None:
            wait.cancel()

    def enter(self, transport: asyncio.Transport) -> tuple[Hashable] | None:
        """Whose connection this is; None if they have too many."""
        user = whose(transport.get_extra_info("socket"))
        if user not in self.free and self._users[user] >= self.limit:
            log.warning("too_many_connections", user=user, limit=self.limit)
            return None
        self._users[user] += 1
        loop = asyncio.get_running_loop()
        self._waits[transport] = loop.call_later(self.seconds, self._late, transport)
        return (user,)

    def leave(self, transport: asyncio.Transport, user: Hashable) -> None:
        self.arrived(transport)
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]

    def _late(self, transport: asyncio.Transport) -> None:
        self._waits.pop(transport, None)
        transport.abort()


class _Guarded(asyncio.Protocol):
    """Stands between a connection and what serves it."""

    def __init__(self, connections: Connections, serve: Callable[[], asyncio.Protocol]) -> None:
        self._connections = connections
        self._serve = serve
        self._served: asyncio.Protocol | None = None
        self._entered: tuple[asyncio.Transport, Hashable] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        entered = self._connections.enter(transport)
        if entered is None:
            transport.write(_REFUSED)
            transport.close()
            return
        self._entered = transport, *entered
        self._served = self._serve()
        self._served.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entered is not None:
            self._connections.leave(*self._entered)
        if self._served is not None:
            self._served.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._served is not None:
            self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return self._served.eof_received() if self._served is not None else None

    def pause_writing(self) -> None:
        if self._served is not None:
            self._served.pause_writing()

    def resume_writing(self) -> None:
        if self._served is not None:
            self._served.resume_writing()
