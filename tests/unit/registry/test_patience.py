"""Registries that keep a slot busy: for ever busy, for ever slow, tokens and names without end."""

import asyncio
import socket
from contextlib import aclosing, suppress
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from services.converter.registry import errors
from services.converter.registry.auth import MAX_TOKEN, MAX_TOKENS, Authorizer
from services.converter.registry.challenge import Challenge
from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import (
    DIRECTLY,
    RegistryEndpoint,
    registry_endpoint,
)
from services.converter.registry.neighbours import refuse_neighbours
from services.converter.registry.pace import Pace
from services.converter.registry.transport import Patience, Transport
from shared.deadline import Deadline
from shared.reference import parse_reference
from shared.waiting import Waits
from tests.support.conditions import eventually
from tests.support.metrics import moved
from tests.unit.registry.conftest import QUICK, Handler, Serve
from tests.unit.registry.test_blobs import DATA, LAYER, read
from tests.unit.registry.test_client import HERE


@pytest.mark.parametrize("status", [429, 503])
async def test_a_registry_that_is_always_busy_is_given_up(
    serve: Serve, deadline: Deadline, status: int
) -> None:
    asked = 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(status=status, headers={"Retry-After": "0"})

    registry = await serve(answer)
    client = registry.client(patience=replace(QUICK, busy_answers=7))
    outcome = "limited" if status == 429 else "broken"
    with (
        moved("dray_registry_requests_total", {"outcome": outcome}, by=7),
        moved("dray_registry_wait_seconds_total", by=None),
        pytest.raises(errors.RegistryBusyError),
    ):
        await client.resolve(registry.reference, HERE, deadline)
    assert asked == 7


async def test_all_waits_for_a_busy_registry_together_have_an_end(
    serve: Serve, deadline: Deadline
) -> None:
    asked = 0

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(status=429, headers={"Retry-After": "0"})

    registry = await serve(answer)
    patience = replace(QUICK, first_wait=0.1, longest_wait=0.1, busy=0.3)
    with pytest.raises(errors.RegistryBusyError):
        await registry.client(patience=patience).resolve(registry.reference, HERE, deadline)
    # However often it says "now": a pause has at least half of the first wait.
    assert 2 <= asked <= 7
    assert deadline.remaining() > 10


def test_by_default_a_busy_registry_gets_minutes_and_not_hours() -> None:
    patience = Patience()
    shortest = sum(patience.wait(n) for n in range(1, patience.busy_answers + 1))
    assert patience.busy == 300
    assert shortest > 120
    assert min(patience.wait(1) for _ in range(100)) >= 0.25


def trickling(asked: list[str]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        response = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b"x")
            await asyncio.sleep(0.01)
        return response

    return answer


async def test_a_blob_that_trickles_is_a_broken_connection(
    serve: Serve, deadline: Deadline
) -> None:
    asked: list[str] = []
    registry = await serve(trickling(asked))
    impatient = replace(QUICK, window=0.1, attempts=3)
    with pytest.raises(errors.RegistryTooSlowError, match="less than 1,024 in a second") as caught:
        await read(registry.client(patience=impatient), registry.reference, deadline)
    assert caught.value.retryable
    assert len(asked) == 3


async def test_a_document_that_trickles_is_one_too(serve: Serve, deadline: Deadline) -> None:
    asked: list[str] = []
    registry = await serve(trickling(asked))
    client = registry.client(patience=replace(QUICK, window=0.1, attempts=2))
    with pytest.raises(errors.RegistryTooSlowError):
        await client.resolve(registry.reference, HERE, deadline)
    assert len(asked) == 2


async def test_a_header_that_trickles_is_no_answer(
    http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    asked = ended = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked, ended
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\nName: ")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.transport.abort()
        ended += 1

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        patience = replace(QUICK, answer=0.1, attempts=2)
        client = RegistryClient(http, registry_endpoint(host, insecure=True), patience)
        with pytest.raises(errors.RegistryTimeoutError, match="did not begin to answer"):
            await client.resolve(parse_reference(f"{host}/a"), HERE, deadline)
        await eventually(lambda: ended == 2, within=10)
    assert asked == 2


async def test_one_byte_per_connection_is_no_progress(serve: Serve, deadline: Deadline) -> None:
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.close()
        return response

    registry = await serve(answer)
    with pytest.raises(errors.RegistryConnectionLostError):
        await read(registry.client(), registry.reference, deadline)
    assert asked == QUICK.attempts


def test_only_the_time_in_which_bytes_were_waited_for_counts() -> None:
    pace = Pace("h", window=10.0, least_rate=1024)
    pace.received(1)  # whoever reads slowly is not the registry's fault
    pace._waited = 9.9
    pace.received(1)
    pace._waited = 10.5
    with pytest.raises(errors.RegistryTooSlowError, match="3 bytes in 10 s"):
        pace.received(1)


def test_a_fast_window_does_not_make_up_for_the_next() -> None:
    pace = Pace("h", window=10.0, least_rate=1024)
    pace._waited = 10.0
    pace.received(1 << 30)
    pace._waited = 10.0
    with pytest.raises(errors.RegistryTooSlowError):
        pace.received(10_239)


async def test_a_reader_that_takes_its_time_loses_nothing(serve: Serve, deadline: Deadline) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=DATA)

    registry = await serve(answer)
    client = registry.client(patience=replace(QUICK, window=0.02, least_rate=1 << 20, attempts=1))
    received = b""
    async with aclosing(client.stream_blob(registry.reference, LAYER, deadline)) as chunks:
        async for chunk in chunks:
            received += chunk
            await asyncio.sleep(0.05)
    assert received == DATA


class Tokens:
    """Gives a token of this length to whoever asks, and takes any."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.scopes: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.scopes.append(request.query["scope"])
        return web.json_response({"token": "t" * self.length})


async def test_a_token_has_a_greatest_length(serve: Serve, deadline: Deadline) -> None:
    for length, good in ((MAX_TOKEN, True), (MAX_TOKEN + 1, False)):
        registry = await serve(Tokens(length))
        authorizer = Authorizer(registry.endpoint, Transport(registry.http, DIRECTLY, QUICK))
        challenge = Challenge("bearer", {"realm": f"http://{registry.host}/token"})
        if good:
            found = await authorizer.answer((challenge,), "s", None, deadline)
            assert found == "Bearer " + "t" * length
        else:
            with pytest.raises(errors.RegistryProtocolError, match="without a usable token"):
                await authorizer.answer((challenge,), "s", None, deadline)


async def test_tokens_of_the_latest_scopes_are_kept(serve: Serve, deadline: Deadline) -> None:
    tokens = Tokens(10)
    registry = await serve(tokens)
    authorizer = Authorizer(registry.endpoint, Transport(registry.http, DIRECTLY, QUICK))
    challenge = (Challenge("bearer", {"realm": f"http://{registry.host}/token"}),)
    for number in range(MAX_TOKENS):
        await authorizer.answer(challenge, f"s{number}", None, deadline)
    assert await authorizer.authorization("s0", deadline) is not None
    await authorizer.answer(challenge, "one more", None, deadline)
    kept = [await authorizer.authorization(f"s{n}", deadline) for n in range(MAX_TOKENS)]
    assert [n for n, token in enumerate(kept) if token is None] == [1]
    assert len(tokens.scopes) == MAX_TOKENS + 1


NEAR = ["127.0.0.1", "127.9.9.9", "localhost", "169.254.169.254", "[::1]", "[fe80::1]"]
NEAR += ["[::ffff:127.0.0.1]", "[::]", "0.0"]


@pytest.mark.parametrize("host", NEAR)
async def test_our_neighbours_are_known(deadline: Deadline, host: str) -> None:
    far = URL("https://192.0.2.1")
    with pytest.raises(errors.RegistryProtocolError, match="address of this machine"):
        await refuse_neighbours(far, URL(f"https://{host}/token"), deadline)


async def test_a_registry_elsewhere_cannot_have_us_ask_a_neighbour_for_tokens(
    serve: Serve, deadline: Deadline
) -> None:
    tokens = Tokens(1)
    registry = await serve(tokens)
    endpoint = RegistryEndpoint("192.0.2.1", URL("http://192.0.2.1"))
    authorizer = Authorizer(endpoint, Transport(registry.http, DIRECTLY, QUICK))
    challenge = Challenge("bearer", {"realm": f"http://{registry.host}/token"})
    with pytest.raises(errors.RegistryProtocolError, match="address of this machine"):
        await authorizer.answer((challenge,), "s", None, deadline)
    assert tokens.scopes == []


async def test_a_registry_next_door_may_name_its_neighbours(deadline: Deadline) -> None:
    near, far = URL("http://127.0.0.1:5000"), URL("https://192.0.2.1")
    await refuse_neighbours(near, URL("http://localhost:6000/token"), deadline)
    await refuse_neighbours(near, far, deadline)
    await refuse_neighbours(far, URL("https://192.0.2.2/"), deadline)
    await refuse_neighbours(far, URL("https://nowhere.invalid/"), deadline)


async def test_a_redirect_to_our_neighbours_is_refused(serve: Serve, deadline: Deadline) -> None:
    reached: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/secret":
            reached.append(request.path)
        location = f"http://127.0.0.1:{request.url.port}/secret"
        return web.Response(status=307, headers={"Location": location})

    registry = await serve(answer)

    class Elsewhere(aiohttp.abc.AbstractResolver):
        """A registry whose name nobody else knows, as if it were far away."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[aiohttp.abc.ResolveResult]:
            return [
                {
                    "hostname": host,
                    "host": "127.0.0.1",
                    "port": port,
                    "family": family,
                    "proto": 0,
                    "flags": 0,
                }
            ]

        async def close(self) -> None:
            pass

    far = f"far.invalid:{registry.server.port}"
    connector = aiohttp.TCPConnector(resolver=Elsewhere(), family=socket.AF_INET)
    async with aiohttp.ClientSession(connector=connector) as http:
        moved = replace(registry.endpoint, registry=far, base_url=URL(f"http://{far}"))
        client = RegistryClient(http, moved, QUICK)
        with pytest.raises(errors.RegistryProtocolError, match="address of this machine"):
            await client.resolve(registry.reference, HERE, deadline)
    assert reached == []


async def test_whoever_watches_hears_why_it_waits(serve: Serve, deadline: Deadline) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "15"})

    registry = await serve(answer)
    waits = Waits()
    with waits.heard():
        asking = asyncio.create_task(registry.client().head_digest(registry.reference, deadline))
        await eventually(lambda: waits.reason is not None, within=10)
    assert waits.reason == (
        "waiting 15 s for the registry: 127.0.0.1 limits how often it may be asked, and the limit "
        "is reached"
    )
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    assert waits.reason is None
