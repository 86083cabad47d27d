"""Requests that take too long are told so, and disturb no other."""

import asyncio
import time

import aiohttp
from aiohttp import web

from tests.support.front import behind_front

LIMIT = 0.4


async def test_what_takes_too_long_ends_and_what_is_quick_does_not() -> None:
    ended = asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return web.Response()

    async def quick(_request: web.Request) -> web.Response:
        return web.Response()

    routes = [web.get("/slow", slow), web.get("/quick", quick)]
    async with behind_front(routes, seconds=LIMIT) as address:
        url = f"http://{address}"
        async with aiohttp.ClientSession() as http:
            began = time.monotonic()
            waiting = asyncio.create_task(http.get(f"{url}/slow"))
            while not waiting.done():
                async with http.get(f"{url}/quick") as response:
                    assert response.status == 200
            async with await waiting as response:
                problem = await response.json(content_type=None)
            assert (response.status, problem["code"]) == (504, "deadline_exceeded")
            assert time.monotonic() - began >= LIMIT
            assert ended.is_set()
            # The connection, and the task behind it, are as good as before.
            async with http.get(f"{url}/quick") as response:
                assert response.status == 200
