"""An answer that is bytes already: making its headers each time costs more than all else about it.

Taken once from what a handler answered, and sent again with an id and a date of its own.
"""

import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

from shared.http.request_ids import HEADER

_OF_EACH: Final = frozenset({HEADER.lower(), "date"})


@dataclass(frozen=True, slots=True)
class ReadyAnswer:
    """A 200 of HTTP/1.1 on a connection that stays open."""

    head: bytes
    """All but the headers that each answer has of its own."""
    body: bytes

    def sent_as(self, request_id: str) -> web.StreamResponse:
        own = f"{HEADER}: {request_id}\r\nDate: {_CLOCK.date()}\r\n\r\n"
        return _Bytes(b"".join((self.head, own.encode("ascii"), self.body)))


def ready(response: web.Response) -> ReadyAnswer:
    """What a handler has just answered, not yet sent."""
    body = response.body
    assert response.status == 200
    assert isinstance(body, bytes)
    headers = {
        **{name: value for name, value in response.headers.items() if name.lower() not in _OF_EACH},
        hdrs.CONTENT_LENGTH: str(len(body)),
        hdrs.SERVER: SERVER_SOFTWARE,
    }
    lines = ("HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items()), "")
    return ReadyAnswer("\r\n".join(lines).encode("ascii"), body)


@dataclass(slots=True)
class _Clock:
    """The second that it is, in words."""

    second: int = -1
    words: str = field(default="")

    def date(self) -> str:
        now = int(time.time())
        if now != self.second:
            self.second, self.words = now, formatdate(now, usegmt=True)
        return self.words


_CLOCK: Final = _Clock()


class _Bytes(web.StreamResponse):
    """Writes them, headers and all, in one go."""

    _keep_alive = True

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        writer = request.writer
        await writer.write(self._content)
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        assert not data
        self._eof_sent = True
