"""Who is known and who is not: identity tokens, and refusals that say which of the two it was."""

import pytest
from aiohttp import web

from services.converter.registry import errors
from services.converter.registry.auth import IDENTITY_TOKEN
from services.converter.registry.endpoint import Credentials
from shared.deadline import Deadline
from tests.unit.registry.conftest import Serve
from tests.unit.registry.test_auth import ALICE
from tests.unit.registry.test_client import HERE, IMAGE, served


async def test_an_identity_token_is_given_to_the_token_server_alone(
    serve: Serve, deadline: Deadline
) -> None:
    forms: list[dict[str, object]] = []
    thief: list[str] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        thief.append(request.path)
        return web.json_response({"token": "t"})

    other = await serve(elsewhere)
    redirects = False

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            assert request.method == "POST"
            assert "Authorization" not in request.headers
            if redirects:
                location = f"http://{other.host}/take"
                return web.Response(status=307, headers={"Location": location})
            forms.append(dict(await request.post()))
            return web.json_response({"access_token": "short-lived", "refresh_token": "other"})
        if request.headers.get("Authorization") == "Bearer short-lived":
            return await served(IMAGE)(request)
        challenge = f'Bearer realm="{request.url.with_path("/token")}",service="reg"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    registry = await serve(answer)
    identity = Credentials(IDENTITY_TOKEN, "long-lived")
    await registry.client(identity).resolve(registry.reference, HERE, deadline)
    assert forms == [
        {
            "grant_type": "refresh_token",
            "client_id": "dray",
            "service": "reg",
            "scope": "repository:group/tool:pull",
            "refresh_token": "long-lived",
        }
    ]
    redirects = True
    with pytest.raises(errors.RegistryProtocolError, match="elsewhere with a secret"):
        await registry.client(identity).head_digest(registry.reference, deadline)
    assert thief == []


async def test_what_wants_a_password_is_not_shown_an_identity_token(
    serve: Serve, deadline: Deadline
) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    registry = await serve(answer)
    identity = Credentials(IDENTITY_TOKEN, "long-lived")
    with pytest.raises(errors.RegistryAccessError):
        await registry.client(identity).head_digest(registry.reference, deadline)
    assert seen == [None]


@pytest.mark.parametrize(
    ("status", "user", "says"),
    [
        (401, None, "log in first"),
        (403, None, "log in first"),
        (401, ALICE, "does not accept these credentials: log in to it again"),
        (403, ALICE, "takes these credentials, but refuses access .* let this user pull"),
    ],
)
async def test_not_known_and_not_allowed_are_told_apart(
    serve: Serve, deadline: Deadline, status: int, user: Credentials | None, says: str
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        return web.Response(status=status)

    registry = await serve(answer)
    with pytest.raises(errors.RegistryAccessError, match=says):
        await registry.client(user).head_digest(registry.reference, deadline)
