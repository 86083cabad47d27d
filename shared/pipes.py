"""Pipes between an event loop and processes that do the work."""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

# Both ends then seldom wait for each other; some kernels allow their users less.
PIPE_BYTES: Final = 1 << 20


def large_pipe() -> tuple[int, int]:
    """Descriptors to read from, which never blocks, and to write to."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with suppress(OSError):
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reading, writing


async def chunks(reading: int) -> AsyncGenerator[bytes, None]:
    """What comes through the pipe until its other end is closed."""
    while True:
        try:
            chunk = os.read(reading, PIPE_BYTES)
        except BlockingIOError:
            await _readable(reading)
            continue
        if not chunk:
            return
        yield chunk


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    something = asyncio.Event()
    loop.add_reader(fd, something.set)
    try:
        await something.wait()
    finally:
        loop.remove_reader(fd)
