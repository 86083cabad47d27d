"""Streams one blob: exactly the promised number of bytes, across broken connections."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

import aiohttp

from services.converter.registry.connection import Connection, Wanted
from services.converter.registry.errors import (
    ContentMismatchError,
    RegistryProtocolError,
    RegistryUnreachableError,
)
from services.converter.registry.failures import translated
from services.converter.registry.pace import Pace
from services.converter.registry.transport import BROKEN, read_piece
from shared.deadline import Deadline

CHUNK: Final = 512 * 1024
PROGRESS: Final = 64 * 1024
"""A connection that brings so much was worth it: the next one is not its repetition."""

_NO_RANGE: Final = 416
_OK_OR_NO_RANGE: Final = frozenset({200, 206, _NO_RANGE})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)")
# Once some bytes have come, a registry that is gone may be restarting.
_RESUMABLE = (*BROKEN, RegistryUnreachableError)


async def stream(
    connection: Connection, wanted: Wanted, size: int, deadline: Deadline, begin: int = 0
) -> AsyncGenerator[bytes, None]:
    """Chunks of the blob; attempts are counted from the last one that brought something."""
    done = begin
    failures = 0
    pieces: list[bytes] = []
    while True:
        began = done
        try:
            answer = await _opened(connection, wanted, done, size, deadline)
            try:
                while done < size:
                    count = min(CHUNK, size - done)
                    await answer.collect(pieces, count)
                    done += count
                    yield _taken(pieces)
                await answer.expect_end()
            finally:
                answer.response.release()
        except _RESUMABLE as exc:
            broken = exc
        else:
            return
        # Less than a chunk is as good: a connection may break more often than a chunk is long.
        if part := _taken(pieces):
            done += len(part)
            yield part
        failures = 1 if done - began >= PROGRESS else failures + 1
        fresh_and_gone = done == begin and not isinstance(broken, BROKEN)
        if fresh_and_gone or failures >= connection.patience.attempts:
            raise broken
        await connection.transport.pause(failures, deadline, broken)


def _taken(pieces: list[bytes]) -> bytes:
    chunk = b"".join(pieces)
    pieces.clear()
    return chunk


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer that carries the blob, or the rest of it."""

    response: aiohttp.ClientResponse
    wanted: Wanted
    pace: Pace
    deadline: Deadline

    async def collect(self, pieces: list[bytes], count: int) -> None:
        """Exactly so many bytes; where it breaks off, what came is there."""
        while count:
            piece = await read_piece(self.response, count, self.pace, self.deadline)
            if not piece:
                raise _wrong_size(self.wanted, "fewer")
            pieces.append(piece)
            count -= len(piece)

    async def skip(self, count: int) -> None:
        """Pass over what is here already: this registry cannot begin in the middle."""
        while count:
            step = min(CHUNK, count)
            await self.collect([], step)
            count -= step

    async def expect_end(self) -> None:
        try:
            async with self.deadline.bound(f"reading {self.wanted.called}"):
                with translated(self.response.url):
                    surplus = await self.response.content.read(1)
        except BROKEN:  # all that was promised is here: how it hangs up is its own affair
            return
        if surplus:
            raise _wrong_size(self.wanted, "more")


async def _opened(
    connection: Connection, wanted: Wanted, done: int, size: int, deadline: Deadline
) -> _Answer:
    """The answer, positioned at byte `done`."""
    headers = {"Range": f"bytes={done}-{size - 1}"} if 0 < done < size else {}
    response = await connection.open("GET", wanted, deadline, headers, _OK_OR_NO_RANGE)
    if response.status == _NO_RANGE:
        # Its blob may be shorter than it said; then that is what its length tells.
        response.release()
        response = await connection.open("GET", wanted, deadline)
    answer = _Answer(response, wanted, connection.transport.pace(response), deadline)
    try:
        _check_encoding(response, wanted)
        if response.status == 206:
            _check_range(response, wanted, done, size)
        else:
            _check_length(response, wanted, size)
            await answer.skip(done)
    except BaseException:
        response.release()
        raise
    return answer


def _check_encoding(response: aiohttp.ClientResponse, wanted: Wanted) -> None:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RegistryProtocolError(
            f"{response.url.host} compresses {wanted.called} although it was asked not to"
        )


def _check_length(response: aiohttp.ClientResponse, wanted: Wanted, size: int) -> None:
    if response.content_length is not None and response.content_length != size:
        raise _wrong_size(wanted, "more" if response.content_length > size else "fewer")


def _check_range(response: aiohttp.ClientResponse, wanted: Wanted, done: int, size: int) -> None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    right = match is not None and int(match[1]) == done and int(match[2]) == size - 1
    if match is None or not right or (match[3] is not None and int(match[3]) != size):
        raise RegistryProtocolError(
            f"{response.url.host} sends another range of {wanted.called} than it was asked for"
        )


def _wrong_size(wanted: Wanted, how: str) -> ContentMismatchError:
    return ContentMismatchError(
        f"{wanted.called} has {how} bytes than its manifest promises: it was damaged on its way or "
        "in the registry; try again, and if it stays so, push the image again"
    )
