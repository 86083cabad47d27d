"""`python -m bench.gateway.load PORT CONNECTIONS SECONDS ASKED`: asks, and prints what it saw.

A process of its own, as thin as can be: with connections that stay open, each asking again as soon
as it is answered. ASKED is a file with the paths, through which connections go in turn, and with
the headers of each request.
"""

import asyncio
import json
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Final

from pydantic import BaseModel

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class Asked(BaseModel):
    """What is asked."""

    paths: list[str]
    headers: dict[str, str] = {}


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: "cycle[bytes]", until: float, seconds: list[float]) -> None:
        self._requests = requests
        self._until = until
        self._seconds = seconds
        self._buffer = b""
        self._asked_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(_END)
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._end(RuntimeError(self._buffer[:500].decode(errors="replace")))
            return
        lines = head.lower().split(b"\r\n")
        length = next(int(line[len(_LENGTH) :]) for line in lines if line.startswith(_LENGTH))
        if len(body) < length:
            return
        now = time.perf_counter()
        self._seconds.append(now - self._asked_at)
        self._buffer = b""
        if now < self._until:
            self._ask()
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the server closed the connection"))

    def _ask(self) -> None:
        assert self._transport is not None
        self._asked_at = time.perf_counter()
        self._transport.write(next(self._requests))

    def _end(self, problem: Exception | None) -> None:
        if self.done.done():
            return
        if problem is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(problem)
        assert self._transport is not None
        self._transport.close()


async def load(port: int, connections: int, seconds: float, asked: Asked) -> list[float]:
    """How long each answer took."""
    headers = {"Host": f"127.0.0.1:{port}", **asked.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    requests = cycle([f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode() for path in asked.paths])
    loop = asyncio.get_running_loop()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    clients = [
        (await loop.create_connection(lambda: Client(requests, until, taken), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    return taken


def main() -> None:
    port, connections, seconds, file = sys.argv[1:]
    asked = Asked.model_validate_json(Path(file).read_bytes())
    began = time.perf_counter()
    taken = sorted(asyncio.run(load(int(port), int(connections), float(seconds), asked)))
    spent = time.perf_counter() - began
    print(
        json.dumps(
            {
                "requests": len(taken),
                "rate": len(taken) / spent,
                "p50": taken[len(taken) // 2],
                "p99": taken[len(taken) * 99 // 100],
            }
        )
    )


if __name__ == "__main__":
    main()
