"""Streams one blob: exactly the promised number of bytes, across broken connections."""

import re
from collections.abc import AsyncGenerator
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

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)")
# Once some bytes have come, a registry that is gone may be restarting.
_RESUMABLE = (*BROKEN, RegistryUnreachableError)


async def stream(
    connection: Connection, wanted: Wanted, size: int, deadline: Deadline
) -> AsyncGenerator[bytes, None]:
    """Chunks of the blob; attempts are counted from the last whole chunk that arrived."""
    done = 0
    failures = 0
    while True:
        try:
            response, pace = await _opened(connection, wanted, done, size, deadline)
            try:
                while done < size:
                    count = min(CHUNK, size - done)
                    chunk = await _exactly(response, wanted, count, pace, deadline)
                    done += len(chunk)
                    failures = 0
                    yield chunk
                await _expect_end(response, wanted, deadline)
            finally:
                response.release()
        except _RESUMABLE as exc:
            failures += 1
            fresh_and_gone = done == 0 and not isinstance(exc, BROKEN)
            if fresh_and_gone or failures >= connection.patience.attempts:
                raise
            await connection.transport.pause(failures, deadline, exc)
        else:
            return


async def _opened(
    connection: Connection, wanted: Wanted, done: int, size: int, deadline: Deadline
) -> tuple[aiohttp.ClientResponse, Pace]:
    """The answer, positioned at byte `done`."""
    headers = {"Range": f"bytes={done}-{size - 1}"} if 0 < done < size else {}
    response = await connection.open("GET", wanted, deadline, headers)
    pace = connection.transport.pace(response)
    try:
        _check_encoding(response, wanted)
        if response.status == 206:
            _check_range(response, wanted, done, size)
        else:
            _check_length(response, wanted, size)
            await _skip(response, wanted, done, pace, deadline)
    except BaseException:
        response.release()
        raise
    return response, pace


async def _expect_end(response: aiohttp.ClientResponse, wanted: Wanted, deadline: Deadline) -> None:
    try:
        async with deadline.bound(f"reading {wanted.called}"):
            with translated(response.url):
                surplus = await response.content.read(1)
    except BROKEN:  # everything promised is here: how the registry hangs up is its own affair
        return
    if surplus:
        raise _wrong_size(wanted, "more")


async def _exactly(
    response: aiohttp.ClientResponse, wanted: Wanted, count: int, pace: Pace, deadline: Deadline
) -> bytes:
    pieces = []
    while count:
        piece = await read_piece(response, count, pace, deadline)
        if not piece:
            raise _wrong_size(wanted, "fewer")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


async def _skip(
    response: aiohttp.ClientResponse, wanted: Wanted, count: int, pace: Pace, deadline: Deadline
) -> None:
    """Pass over what is here already: this registry cannot begin in the middle."""
    while count:
        count -= len(await _exactly(response, wanted, min(CHUNK, count), pace, deadline))


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
