"""A layer's blob as it comes through a pipe, whose other end may be left before all is said."""

import os
import select
import socket

from shared.image.errors import WorkCancelledError


class PipedBlob:
    """The end of the pipe is the end of the blob only as long as the owner has not hung up."""

    def __init__(self, pipe: int, owner: socket.socket) -> None:
        self._pipe = pipe
        self._owner = owner
        self._closed = os.eventfd(0)
        self._ready = select.poll()
        self._ready.register(pipe, select.POLLIN)
        self._ready.register(self._closed, select.POLLIN)

    def read(self, size: int, /) -> bytes:
        if any(fd == self._closed for fd, _ in self._ready.poll()):
            raise WorkCancelledError("the blob was closed while it was being read")
        piece = os.read(self._pipe, size)
        if not piece and has_hung_up(self._owner):
            raise WorkCancelledError("the layer's owner has given it up")
        return piece

    def close(self) -> None:
        """Wakes who reads; the descriptors end with the process."""
        os.eventfd_write(self._closed, 1)


def has_hung_up(owner: socket.socket) -> bool:
    """Whether the owner, who never says anything there, has closed its end."""
    try:
        return not owner.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
