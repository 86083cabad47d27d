"""What never gets into a log, whichever library writes it."""

import asyncio
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from shared.http.server import HttpServer
from shared.logging import configure_logging
from shared.settings.site import LogSettings
from tests.support.conditions import eventually

TOKEN = "dray1.c29tZWJvZHk.c2lnbmF0dXJl"


@contextmanager
def configured() -> Iterator[io.StringIO]:
    root, served = logging.getLogger(), logging.getLogger("aiohttp.server")
    before = root.handlers, root.level, list(served.filters)
    configure_logging(LogSettings(format="json"))
    text = io.StringIO()
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(text)
    try:
        yield text
    finally:
        root.handlers, served.filters = before[0], before[2]
        root.setLevel(before[1])


@pytest.mark.parametrize(
    "line", [f"Authorization : Bearer {TOKEN}", f"Authorization: Bearer {TOKEN}\x01"]
)
async def test_a_malformed_request_leaves_no_credential_in_the_log(line: str) -> None:
    with configured() as text:
        server = HttpServer(web.Application(), "127.0.0.1:0")
        await server.start()
        try:
            host, _, port = server.address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n{line}\r\n\r\n".encode())
            assert b" 400 " in await reader.readline()
            writer.close()
            await eventually(lambda: "malformed_request" in text.getvalue(), within=5)
        finally:
            await server.stop()
    assert TOKEN not in text.getvalue()
    assert '"level": "error"' not in text.getvalue()
