"""Server-sent events to clients that read slowly, not at all, or are just waiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from services.gateway.auth.identity import Principal
from services.gateway.handlers import stream as module
from services.gateway.handlers.stream import Events, seconds_for, stream
from shared.errors import NotFoundError
from shared.http.answers import STREAM_ROUTE
from tests.support.conditions import eventually
from tests.support.front import behind_front

MEGABYTE = b"data: " + b"x" * (1 << 20) + b"\n\n"


@asynccontextmanager
async def serving(events: Callable[[], Events]) -> AsyncIterator[str]:
    async def follow(request: web.Request) -> web.StreamResponse:
        return await stream(request, events())

    async with behind_front([web.get("/events", follow, name=STREAM_ROUTE)]) as address:
        yield address


async def test_who_does_not_read_is_dropped_and_costs_a_few_buffers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.2)
    sent = 0
    ended = asyncio.Event()

    async def events() -> Events:
        nonlocal sent
        try:
            while True:
                sent += 1
                yield MEGABYTE
        finally:
            ended.set()

    async with serving(events) as address:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(ended.wait(), 10)
        assert sent < 30, "what is not read does not pile up"
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(64 << 20)
        writer.close()


async def test_who_leaves_before_the_answer_begins_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, gone, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def events() -> Events:
        try:
            asked.set()
            await gone.wait()
            yield b"data: first\n\n"
        finally:
            ended.set()

    requests: list[web.Request] = []
    problems: list[BaseException] = []

    async def follow(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        try:
            return await stream(request, events())
        except Exception as exc:
            problems.append(exc)
            raise

    async with behind_front([web.get("/events", follow, name=STREAM_ROUTE)]) as address:
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(asked.wait(), 10)
        writer.close()
        await eventually(lambda: requests[0].transport is None, within=10)
        gone.set()
        await asyncio.wait_for(ended.wait(), 10)
    assert problems == []
    assert not caplog.records


async def test_who_waits_is_told_that_somebody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.02)
    go_on = asyncio.Event()

    async def events() -> Events:
        yield b"data: first\n\n"
        await go_on.wait()
        yield b"data: last\n\n"

    async with (
        serving(events) as address,
        aiohttp.ClientSession() as http,
        http.get(f"http://{address}/events") as response,
    ):
        seen = b""
        while seen.count(b": still here") < 3:
            seen += await response.content.readany()
        assert seen.startswith(b"retry: 1000\n\ndata: first\n\n")
        go_on.set()
        seen += await response.content.read()
        assert seen.endswith(b"data: last\n\n")


async def test_who_goes_away_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE_SECONDS", 0.02)
    ended = asyncio.Event()

    async def events() -> Events:
        try:
            yield b"data: first\n\n"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(events) as address, aiohttp.ClientSession() as http:
        async with http.get(f"http://{address}/events") as response:
            await response.content.readany()
        await eventually(ended.is_set, within=10)


def test_nobody_follows_for_longer_than_their_token_lives() -> None:
    ever = Principal("ada", frozenset(), "socket", uid=1000)
    assert seconds_for(ever) == module.STREAM_SECONDS
    assert 0 < seconds_for(replace(ever, until=time.time() + 20)) <= 20
    assert seconds_for(replace(ever, until=time.time() - 20)) == 0


async def test_an_error_before_the_first_event_is_told_as_one() -> None:
    async def events() -> Events:
        for problem in (NotFoundError("there is nothing to follow"),):
            raise problem
        yield b""

    async with (
        serving(events) as address,
        aiohttp.ClientSession() as http,
        http.get(f"http://{address}/events") as response,
    ):
        assert response.status == 404
        assert (await response.json(content_type=None))["code"] == "not_found"
