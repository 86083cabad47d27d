"""Streaming a layer from a server that sends too little, too much, or breaks off."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

import pytest
from aiohttp import web

from services.converter.registries import Registries
from services.converter.registry import errors
from services.converter.registry.blobs import CHUNK, PROGRESS
from services.converter.registry.client import RegistryClient, ResolvedLayer
from services.converter.registry.endpoint import Credentials
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from shared.reference import ImageReference
from shared.settings.site import RegistrySettings
from shared.waiting import Waits
from tests.support.conditions import eventually
from tests.support.images import sha256
from tests.unit.registry.conftest import QUICK, Serve

DATA = os.urandom(3 * 1024 * 1024 + 17)
LAYER = ResolvedLayer(
    digest=sha256(DATA),
    size=len(DATA),
    media_type="application/vnd.oci.image.layer.v1.tar",
    compression="none",
    diff_id=sha256(DATA),
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def read(
    client: RegistryClient,
    reference: ImageReference,
    deadline: Deadline,
    layer: ResolvedLayer = LAYER,
    *,
    received: bytearray | None = None,
) -> bytes:
    received = bytearray() if received is None else received
    async with aclosing(client.stream_blob(reference, layer, deadline)) as chunks:
        async for chunk in chunks:
            assert 0 < len(chunk) <= CHUNK
            received += chunk
    return bytes(received)


def sending(body: bytes, *, stated: int | None = None) -> Handler:
    """Sends `body`; states another length, or none."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if stated is not None:
            response.content_length = stated
        await response.prepare(request)
        await response.write(body)
        return response

    return answer


def breaking(ranges: list[str], *, honours_range: bool, after: int = 1_500_000) -> Handler:
    """Resets every answer but the last after so many bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range", "")
        ranges.append(asked)
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked and honours_range else 0
        headers = {"Content-Length": str(len(DATA) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        limit = after if len(ranges) < 3 else len(DATA)
        await response.write(DATA[start : start + limit])
        if start + limit < len(DATA):
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


async def test_exactly_the_promised_bytes(serve: Serve, deadline: Deadline) -> None:
    registry = await serve(sending(DATA))
    assert await read(registry.client(), registry.reference, deadline) == DATA


async def test_an_empty_blob_is_no_bytes(serve: Serve, deadline: Deadline) -> None:
    registry = await serve(sending(b""))
    empty = replace(LAYER, size=0)
    assert await read(registry.client(), registry.reference, deadline, empty) == b""


@pytest.mark.parametrize(
    ("handler", "how"),
    [
        (sending(DATA[:-1]), "fewer bytes"),
        (sending(b""), "fewer bytes"),
        (sending(DATA[:-1], stated=len(DATA) - 1), "fewer bytes"),
        (sending(DATA + b"x"), "more bytes"),
        (sending(DATA + b"x", stated=len(DATA) + 1), "more bytes"),
    ],
)
async def test_another_size_is_an_error(
    serve: Serve, deadline: Deadline, handler: Handler, how: str
) -> None:
    registry = await serve(handler)
    with pytest.raises(errors.ContentMismatchError, match=how):
        await read(registry.client(), registry.reference, deadline)


async def test_an_endless_blob_ends_at_the_first_byte_over(
    serve: Serve, deadline: Deadline
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not request.transport or not request.transport.is_closing():
            await response.write(b"x" * 65536)
        return response

    registry = await serve(answer)
    received = bytearray()
    with pytest.raises(errors.ContentMismatchError, match="more bytes"):
        await read(registry.client(), registry.reference, deadline, received=received)
    assert len(received) == LAYER.size


async def test_a_broken_connection_is_resumed_where_it_broke(
    serve: Serve, deadline: Deadline
) -> None:
    ranges: list[str] = []
    registry = await serve(breaking(ranges, honours_range=True))
    assert await read(registry.client(), registry.reference, deadline) == DATA
    starts = [int(r.removeprefix("bytes=").split("-")[0]) for r in ranges if r]
    assert len(ranges) == 3
    assert starts == sorted(starts)
    assert starts[-1] >= CHUNK
    assert ranges[-1].endswith(f"-{len(DATA) - 1}")


async def test_a_registry_without_ranges_is_read_again_from_the_start(
    serve: Serve, deadline: Deadline
) -> None:
    ranges: list[str] = []
    registry = await serve(breaking(ranges, honours_range=False))
    assert await read(registry.client(), registry.reference, deadline) == DATA
    assert len(ranges) == 3


async def test_no_progress_ends_after_the_last_attempt(serve: Serve, deadline: Deadline) -> None:
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    registry = await serve(answer)
    with pytest.raises(errors.RegistryConnectionLostError, match="broke"):
        await read(registry.client(), registry.reference, deadline)
    # aiohttp itself asks once more where a kept connection turns out to be closed.
    assert QUICK.attempts <= asked <= 2 * QUICK.attempts


async def test_another_range_than_asked_for_is_refused(serve: Serve, deadline: Deadline) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "Range" not in request.headers:
            return await breaking([], honours_range=True)(request)
        headers = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
        return web.Response(status=206, body=DATA, headers=headers)

    registry = await serve(answer)
    with pytest.raises(errors.RegistryProtocolError, match="another range"):
        await read(registry.client(), registry.reference, deadline)


async def test_a_missing_layer_says_so(serve: Serve, deadline: Deadline) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    registry = await serve(answer)
    with pytest.raises(errors.ImageIncompleteError, match="may have moved"):
        await read(registry.client(), registry.reference, deadline)


async def test_a_stalled_blob_is_given_up(serve: Serve, deadline: Deadline) -> None:
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
        await response.prepare(request)
        await response.write(DATA[:CHUNK])
        await gone.wait()
        return response

    registry = await serve(answer)
    impatient = replace(QUICK, silence=0.1, attempts=1)
    with pytest.raises(errors.RegistryTimeoutError, match="silent"):
        await read(registry.client(patience=impatient), registry.reference, deadline)
    with pytest.raises(DeadlineExceededError, match="while reading"):
        await read(registry.client(), registry.reference, Deadline.after(0.2))
    gone.set()


@pytest.mark.parametrize(("every", "ranges"), [(CHUNK - 1, 7), (PROGRESS, 49)])
async def test_a_connection_may_break_more_often_than_a_chunk_is_long(
    serve: Serve, deadline: Deadline, every: int, ranges: int
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Range", ""))
        start = int(asked[-1].removeprefix("bytes=").split("-")[0]) if asked[-1] else 0
        headers = {"Content-Length": str(len(DATA) - start)}
        headers["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(DATA[start : start + every])
        if start + every < len(DATA):
            assert request.transport is not None
            request.transport.close()
        return response

    registry = await serve(answer)
    assert await read(registry.client(), registry.reference, deadline) == DATA
    assert len(asked) == ranges


async def test_a_registry_that_refuses_ranges_is_read_again_from_the_start(
    serve: Serve, deadline: Deadline
) -> None:
    asked: list[str] = []
    whole = breaking(asked, honours_range=False)

    async def answer(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers:
            return web.Response(status=416)
        return await whole(request)

    registry = await serve(answer)
    assert await read(registry.client(), registry.reference, deadline) == DATA
    assert asked == [""] * 3


async def test_all_clients_of_a_registry_share_its_connections(
    serve: Serve, deadline: Deadline
) -> None:
    under_way = most = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return web.Response(body=DATA)

    registry = await serve(answer)
    known = {registry.host: RegistrySettings(connections=2)}
    registries = Registries(registry.http, known, QUICK, {})
    users = [None, *(Credentials(f"user{n}", "x") for n in range(5))]
    clients = [await registries.client(registry.host, user) for user in users]
    waits = Waits()
    with waits.heard():
        reads = [
            asyncio.create_task(read(client, registry.reference, deadline)) for client in clients
        ]
        await eventually(lambda: waits.reason is not None, within=10)
    assert waits.reason == f"waiting for a free connection to {registry.host}"
    assert await asyncio.gather(*reads) == [DATA] * 6
    assert most == 2
    assert waits.reason is None
