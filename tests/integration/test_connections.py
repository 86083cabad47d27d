"""Nobody takes all connections of a gateway, or holds them without a request."""

import asyncio

from aiohttp import web

from tests.support.conditions import eventually
from tests.support.front import behind_front

REQUEST = b"GET /there HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def there(_: web.Request) -> web.Response:
    return web.Response(text="here")


ROUTES = [web.get("/there", there)]


async def opened(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def test_an_address_with_too_many_connections_is_told_until_one_is_closed() -> None:
    async with behind_front(ROUTES, most_connections=2) as address:
        kept = [await opened(address) for _ in range(2)]
        reader, writer = await opened(address)
        refused = await asyncio.wait_for(reader.read(), 5)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"too_many_connections" in refused
        writer.close()
        kept[0][1].close()

        async def is_let_in() -> bool:
            reader, writer = await opened(address)
            writer.write(REQUEST)
            line = await asyncio.wait_for(reader.readline(), 5)
            writer.close()
            return line.startswith(b"HTTP/1.1 200 ")

        await eventually(is_let_in, within=5)
        kept[1][1].close()


async def test_a_connection_without_a_request_is_closed() -> None:
    async with behind_front(ROUTES, first_request=0.1) as address:
        reader, writer = await opened(address)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_one_that_has_asked_may_stay_for_more() -> None:
    async with behind_front(ROUTES, first_request=0.3) as address:
        reader, writer = await opened(address)
        writer.write(REQUEST)
        assert (await asyncio.wait_for(reader.readuntil(b"here"), 5)).startswith(b"HTTP/1.1 200 ")
        idle, idle_writer = await opened(address)
        # Once that one is closed for its silence, the first would be, too.
        assert await asyncio.wait_for(idle.read(), 5) == b""
        writer.write(REQUEST)
        assert (await asyncio.wait_for(reader.readuntil(b"here"), 5)).startswith(b"HTTP/1.1 200 ")
        for each in (writer, idle_writer):
            each.close()
