"""Credentials go where they belong, tokens are renewed, and nothing is ever shown."""

import asyncio
import base64
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from services.converter.registry import errors
from services.converter.registry.auth import Authorizer
from services.converter.registry.challenge import Challenge
from services.converter.registry.endpoint import (
    DIRECTLY,
    Credentials,
    RegistryEndpoint,
    registry_endpoint,
)
from services.converter.registry.transport import MAX_WAIT, Transport, retry_after
from shared.deadline import Deadline
from shared.errors import ConfigError
from tests.unit.registry.conftest import QUICK, Serve
from tests.unit.registry.test_blobs import DATA, LAYER, breaking, read
from tests.unit.registry.test_client import HERE, IMAGE, served

ALICE = Credentials("alice", "pa:ss'wörd")
ALICE_BASIC = "Basic " + base64.b64encode(b"alice:" + "pa:ss'wörd".encode()).decode()


class TokenRegistry:
    """A registry behind tokens, each good for so many requests; /token gives new ones."""

    def __init__(self, uses: int = 1000, lifetime: int = 300, login: str | None = None) -> None:
        self.uses = uses
        self.lifetime = lifetime
        self.login = login
        self.issued: list[dict[str, str]] = []
        self.left: dict[str, int] = {}
        self.behind = served(IMAGE)
        self.asked = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            if self.login not in {None, request.headers.get("Authorization")}:
                return web.json_response({"errors": []}, status=401)
            self.issued.append(dict(request.query))
            token = f"token-{len(self.issued)}"
            self.left[token] = self.uses
            return web.json_response({"access_token": token, "expires_in": self.lifetime})
        self.asked += 1
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.left.get(token, 0) == 0:
            realm = request.url.with_path("/token")
            challenge = f'Bearer realm="{realm}",service="reg",scope="repository:evil:push"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        self.left[token] -= 1
        return await self.behind(request)


async def test_a_token_is_for_pulling_this_repository_only(
    serve: Serve, deadline: Deadline
) -> None:
    tokens = TokenRegistry()
    registry = await serve(tokens)
    client = registry.client()
    await client.resolve(registry.reference, HERE, deadline)
    await client.head_digest(registry.reference, deadline)
    assert tokens.issued == [{"service": "reg", "scope": "repository:group/tool:pull"}]


async def test_a_token_that_runs_out_in_mid_pull_is_renewed(
    serve: Serve, deadline: Deadline
) -> None:
    tokens = TokenRegistry(uses=1)
    tokens.behind = breaking([], honours_range=True)
    registry = await serve(tokens)
    assert await read(registry.client(), registry.reference, deadline) == DATA
    assert len(tokens.issued) == 3


async def test_a_token_about_to_expire_is_renewed_without_being_refused_first(
    serve: Serve, deadline: Deadline
) -> None:
    tokens = TokenRegistry(lifetime=1)
    registry = await serve(tokens)
    client = registry.client()
    await client.head_digest(registry.reference, deadline)
    asked = tokens.asked
    while len(tokens.issued) < 2 and not deadline.expired:
        await client.head_digest(registry.reference, deadline)
        asked += 2
        await asyncio.sleep(0.05)
    assert len(tokens.issued) == 2
    assert tokens.asked == asked


async def test_parallel_layers_share_one_renewal(serve: Serve, deadline: Deadline) -> None:
    tokens = TokenRegistry()
    registry = await serve(tokens)
    client = registry.client()
    await asyncio.gather(*(client.head_digest(registry.reference, deadline) for _ in range(8)))
    assert len(tokens.issued) == 1


async def test_credentials_get_the_token_and_wrong_ones_are_told(
    serve: Serve, deadline: Deadline
) -> None:
    tokens = TokenRegistry(login=ALICE_BASIC)
    registry = await serve(tokens)
    await registry.client(ALICE).resolve(registry.reference, HERE, deadline)
    assert len(tokens.issued) == 1
    mallory = Credentials("mallory", "guessed-it")
    with pytest.raises(errors.RegistryAccessError, match="credentials") as caught:
        await registry.client(mallory).resolve(registry.reference, HERE, deadline)
    assert "guessed" not in str(caught.value)
    with pytest.raises(errors.RegistryAccessError, match="log in first: dray login "):
        await registry.client().resolve(registry.reference, HERE, deadline)


async def test_basic_credentials_are_sent_only_when_asked_for(
    serve: Serve, deadline: Deadline
) -> None:
    seen: list[str | None] = []
    good = served(IMAGE)

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        if seen[-1] != ALICE_BASIC:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return await good(request)

    registry = await serve(answer)
    await registry.client(ALICE).resolve(registry.reference, HERE, deadline)
    assert seen == [None, ALICE_BASIC, ALICE_BASIC]
    with pytest.raises(errors.RegistryAccessError, match="does not accept these credentials"):
        await registry.client(Credentials("a", "b")).head_digest(registry.reference, deadline)
    with pytest.raises(errors.RegistryAccessError, match="log in first: dray login "):
        await registry.client().head_digest(registry.reference, deadline)


async def test_a_redirect_to_another_host_carries_no_authorization(
    serve: Serve, deadline: Deadline
) -> None:
    seen: list[tuple[str, str | None]] = []

    async def store(request: web.Request) -> web.StreamResponse:
        seen.append((request.raw_path, request.headers.get("Authorization")))
        return web.Response(body=DATA)

    elsewhere = await serve(store)
    signed = "/b%2Fucket/x?X-Sig=a%2Fb%2Bc&e=%20"

    async def answer(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        if "hop" not in request.query:
            return web.Response(status=302, headers={"Location": f"{request.path}?hop=1"})
        location = f"http://{elsewhere.host}{signed}"
        return web.Response(status=307, headers={"Location": location})

    registry = await serve(answer)
    assert await read(registry.client(ALICE), registry.reference, deadline) == DATA
    assert seen == [(signed, None)]


async def test_a_challenge_of_a_redirects_target_is_not_answered(
    serve: Serve, deadline: Deadline
) -> None:
    seen: list[tuple[str, str | None]] = []

    async def thief(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, request.headers.get("Authorization")))
        challenge = f'Bearer realm="{request.url.with_path("/token")}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    elsewhere = await serve(thief)

    async def answer(request: web.Request) -> web.StreamResponse:
        location = f"http://{elsewhere.host}/secret-signature"
        return web.Response(status=302, headers={"Location": location})

    registry = await serve(answer)
    with pytest.raises(errors.RegistryProtocolError, match="redirects, answers 401") as caught:
        await registry.client(ALICE).head_digest(registry.reference, deadline)
    assert "secret-signature" not in str(caught.value)
    assert seen == [("/secret-signature", None)]


@pytest.mark.parametrize(
    "location",
    ["", "ftp://h/x", "http://user:pass@h/x", "http://h:99999/x", "http://[x/", "http://h/ x", "/"],
)
async def test_redirects_that_lead_nowhere_are_refused(
    serve: Serve, deadline: Deadline, location: str
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": location})

    registry = await serve(answer)
    with pytest.raises(errors.RegistryProtocolError, match="redirects"):
        await registry.client().head_digest(registry.reference, deadline)


@pytest.mark.parametrize(
    "realm", ["", "nonsense", "http://h/token", "https://u:p@h/token", "file:///etc/passwd"]
)
async def test_a_token_address_in_the_clear_is_refused(
    serve: Serve, deadline: Deadline, realm: str
) -> None:
    registry = await serve(TokenRegistry())
    endpoint = RegistryEndpoint("h", URL("https://h"), credentials=ALICE)
    authorizer = Authorizer(endpoint, Transport(registry.http, DIRECTLY, QUICK))
    with pytest.raises(errors.RegistryProtocolError):
        await authorizer.answer((Challenge("bearer", {"realm": realm}),), "s", None, deadline)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": "a\\nb"}', b'{"token": 7}', b"{}"])
async def test_a_token_that_is_none_is_refused(
    serve: Serve, deadline: Deadline, body: bytes
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.Response(body=body)
        challenge = f'Bearer realm="{request.url.with_path("/token")}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry = await serve(answer)
    with pytest.raises(errors.RegistryProtocolError, match="without a usable token"):
        await registry.client().head_digest(registry.reference, deadline)


async def test_an_abandoned_stream_gives_its_connection_back(
    serve: Serve, deadline: Deadline
) -> None:
    tokens = TokenRegistry()
    tokens.behind = breaking([""] * 3, honours_range=True)
    registry = await serve(tokens)
    chunks = registry.client().stream_blob(registry.reference, LAYER, deadline)
    async with aclosing(chunks):
        assert len(await anext(chunks)) > 0
    assert registry.http.connector is not None
    assert not registry.http.connector._acquired


def test_nothing_shows_a_secret() -> None:
    endpoint = replace(registry_endpoint("h.io"), credentials=ALICE)
    assert "alice" not in repr(endpoint)
    assert "wörd" not in repr(endpoint)


def test_endpoints(tmp_path: Path) -> None:
    assert str(registry_endpoint("docker.io").base_url) == "https://registry-1.docker.io"
    assert str(registry_endpoint("[::1]:5", insecure=True).base_url) == "http://[::1]:5"
    with pytest.raises(ConfigError, match="ca_file"):
        registry_endpoint("h.io", ca_file=tmp_path / "none.pem")


@given(st.text(max_size=40))
def test_any_retry_after_is_nothing_or_bounded(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or 0 <= seconds <= MAX_WAIT


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("120") == 120
    assert retry_after("9" * 400) == MAX_WAIT
    assert retry_after("soon") is None
    soon = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert soon is not None
    assert 50 < soon <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
