"""What every request goes through: in its order, and whatever comes of it."""

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from yarl import URL

from services.gateway.auth.identity import Principal, Scope, principal_of
from services.gateway.auth.tokens import TokenInvalidError
from services.gateway.limits import Limits
from shared.errors import NotFoundError
from shared.http.answers import STREAM_ROUTE
from tests.support.conditions import eventually
from tests.support.front import behind_front

PUBLIC = Principal("anonymous", frozenset(), "nobody")
USER = Principal("ada", frozenset({Scope.READ}), "token", 1000)
ADMIN = Principal("root", frozenset(Scope), "token", 0)


class Users:
    """Whoever sends a name is that one; others are the public."""

    def __init__(self) -> None:
        self.asked = 0

    def at_hand(self, request: web.Request) -> Principal | None:
        return None if "Authorization" in request.headers else PUBLIC

    async def principal(self, request: web.Request) -> Principal:
        self.asked += 1
        await asyncio.sleep(0)
        known = {"ada": USER, "root": ADMIN}
        if (named := request.headers["Authorization"]) not in known:
            raise TokenInvalidError("this is no token of this site")
        return known[named]


async def _name(request: web.Request) -> web.Response:
    return web.json_response({"name": principal_of(request).name})


async def _missing(_request: web.Request) -> web.Response:
    raise NotFoundError("there is nothing of this name")


async def _broken(_request: web.Request) -> web.Response:
    raise ValueError("unexpected")


async def _moved(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def _forever(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


ROUTES = (
    web.get("/page", _name),
    web.get("/api/v1/name", _name),
    web.get("/api/v1/missing", _missing),
    web.get("/api/missing", _missing),
    web.get("/api/v1/broken", _broken),
    web.get("/moved", _moved),
    web.get("/api/v1/forever", _forever),
    web.get("/api/v1/events", _forever, name=STREAM_ROUTE),
)


@pytest.fixture
async def users() -> Users:
    return Users()


@pytest.fixture
async def http(users: Users) -> AsyncIterator[aiohttp.ClientSession]:
    limits = Limits(0.001, 3, 1)
    async with (
        behind_front(ROUTES, who=users, limits=limits) as address,
        aiohttp.ClientSession(f"http://{address}") as session,
    ):
        yield session


async def ask(
    http: aiohttp.ClientSession, path: str, **headers: str
) -> tuple[int, dict[str, object], str]:
    # As it is written: the client would tidy it up.
    async with http.get(
        URL(path, encoded=True), headers=headers, allow_redirects=False
    ) as response:
        content = await response.json(content_type=None) if await response.read() else {}
        return response.status, content, response.headers["X-Request-Id"]


def counted(route: str, status: str, via: str) -> float:
    labels = {"route": route, "method": "GET", "status": status, "via": via}
    return REGISTRY.get_sample_value("dray_http_request_seconds_count", labels) or 0.0


@pytest.mark.parametrize(
    ("path", "who", "status", "code"),
    [
        ("/page", {}, 200, None),
        ("/page", {"Authorization": "eve"}, 401, "token_invalid"),
        ("/api/v1/name", {}, 401, "not_authenticated"),
        ("/%61pi/v1/name", {}, 401, "not_authenticated"),
        ("/api%2Fv1/name", {}, 404, "not_found"),
        ("/api/v1/nothing", {}, 401, "not_authenticated"),
        ("/api/v1/nothing", {"Authorization": "ada"}, 404, "not_found"),
        ("/api/v1/name", {"Authorization": "ada"}, 200, None),
        ("/api/v1/name", {"Authorization": "ada", "Host": "evil.example"}, 421, "unknown_host"),
        ("/api/v1/missing", {"Authorization": "ada"}, 404, "not_found"),
        ("/api/v1/broken", {"Authorization": "ada"}, 500, "internal_error"),
        ("/api/v1/events", {}, 401, "not_authenticated"),
        ("/nothing", {}, 404, "not_found"),
    ],
)
async def test_what_comes_of_a_request(
    path: str, who: dict[str, str], status: int, code: str | None, http: aiohttp.ClientSession
) -> None:
    found, content, request_id = await ask(http, path, **who)
    assert (found, content.get("code")) == (status, code)
    assert re.fullmatch(r"[0-9a-f]{28}", request_id)


async def test_who_names_the_service_wrongly_is_not_even_asked(
    users: Users, http: aiohttp.ClientSession
) -> None:
    await ask(http, "/api/v1/name", Authorization="ada", Host="evil.example")
    assert users.asked == 0


async def test_an_id_that_a_client_sends_comes_back_if_it_is_sane(
    http: aiohttp.ClientSession,
) -> None:
    assert (await ask(http, "/page", **{"X-Request-Id": "job-7.1"}))[2] == "job-7.1"
    assert (await ask(http, "/page", **{"X-Request-Id": "a b"}))[2] != "a b"
    assert (await ask(http, "/nothing", **{"X-Request-Id": "job-8"}))[2] == "job-8"


async def test_the_wire_hears_of_problems_in_its_own_shape(http: aiohttp.ClientSession) -> None:
    status, content, _ = await ask(http, "/api/missing", Authorization="ada")
    assert (status, content["error"]) == (404, "there is nothing of this name")
    assert content["message"] == "Not Found: /api/missing"


async def test_a_redirect_stays_one_and_is_measured(http: aiohttp.ClientSession) -> None:
    before = counted("/moved", "302", "nobody")
    async with http.get("/moved", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/elsewhere")
        assert response.headers["X-Request-Id"]
    assert counted("/moved", "302", "nobody") == before + 1


async def test_a_user_is_limited_and_an_admin_or_a_page_is_not(
    http: aiohttp.ClientSession,
) -> None:
    for _ in range(3):
        assert (await ask(http, "/api/v1/name", Authorization="ada"))[0] == 200
    status, content, _ = await ask(http, "/api/v1/missing", Authorization="ada")
    assert (status, content["code"]) == (429, "too_many_requests")
    assert (await ask(http, "/page", Authorization="ada"))[0] == 200
    for _ in range(5):
        assert (await ask(http, "/api/v1/name", Authorization="root"))[0] == 200


async def test_streams_are_counted_while_they_are_open(http: aiohttp.ClientSession) -> None:
    ada = {"Authorization": "ada"}
    following = asyncio.create_task(http.get("/api/v1/events", headers=ada))
    await eventually(lambda: REGISTRY.get_sample_value("dray_http_streams") == 1, within=10)
    status, content, _ = await ask(http, "/api/v1/events", **ada)
    assert (status, content["code"]) == (429, "too_many_streams")
    following.cancel()


async def test_what_an_error_costs_is_measured_under_who_asked(
    http: aiohttp.ClientSession,
) -> None:
    before = counted("/api/v1/broken", "500", "token"), counted("unknown", "404", "nobody")
    await ask(http, "/api/v1/broken", Authorization="ada")
    await ask(http, "/nothing")
    after = counted("/api/v1/broken", "500", "token"), counted("unknown", "404", "nobody")
    assert after == (before[0] + 1, before[1] + 1)
