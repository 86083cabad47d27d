"""Logins are tried at the registry, and its word is told."""

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from services.converter.registries import Registries
from services.converter.registry import errors
from services.converter.registry.endpoint import Credentials
from services.converter.registry.errors import RegistryError
from services.converter.sources.user import UserSource
from shared.deadline import Deadline
from shared.reference import parse_reference
from tests.unit.registry.conftest import Serve
from tests.unit.registry.test_auth import ALICE, ALICE_BASIC, TokenRegistry
from tests.unit.registry.test_client import HERE, IMAGE, served

WRONG = Credentials("alice", "wrong")


async def basic(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Authorization") == ALICE_BASIC:
        return await served(IMAGE)(request) if request.path != "/v2/" else web.json_response({})
    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})


async def ping_with_tokens(request: web.Request) -> web.StreamResponse:
    if request.path != "/v2/":
        return await TOKENS(request)
    if request.headers.get("Authorization", "").startswith("Bearer token-"):
        return web.json_response({})
    return await TOKENS(request)


TOKENS = TokenRegistry(login=ALICE_BASIC)


@pytest.mark.parametrize("handler", [basic, ping_with_tokens])
async def test_the_right_password_is_taken(
    serve: Serve,
    deadline: Deadline,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> None:
    registry = await serve(handler)
    await registry.client(ALICE).log_in(deadline)


@pytest.mark.parametrize("handler", [basic, ping_with_tokens])
async def test_the_wrong_one_is_refused_without_being_repeated(
    serve: Serve,
    deadline: Deadline,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> None:
    registry = await serve(handler)
    with pytest.raises(errors.RegistryAccessError) as caught:
        await registry.client(WRONG).log_in(deadline)
    assert "wrong" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "told"),
    [(200, "no login is needed"), (404, "answers 404"), (500, "error of its own")],
)
async def test_what_is_no_answer_to_a_login_is_no_success(
    serve: Serve, deadline: Deadline, status: int, told: str
) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    registry = await serve(handler)
    with pytest.raises(RegistryError, match=told):
        await registry.client(ALICE).log_in(deadline)


async def test_the_password_is_fetched_only_where_the_registry_says_no(
    serve: Serve, deadline: Deadline
) -> None:
    fetched: list[Credentials] = []

    async def fetch(_: Deadline) -> Credentials:
        fetched.append(ALICE)
        return ALICE

    for handler, wanted in ((served(IMAGE), False), (basic, True)):
        registry = await serve(handler)
        reference = parse_reference(f"{registry.host}/group/tool:1")
        checked, pulled = (
            UserSource(Registries(registry.http, {}), reference, fetch) for _ in range(2)
        )
        assert await checked.head_digest(deadline) == IMAGE.digest
        image = await pulled.resolve(HERE, deadline)
        assert checked.authenticated is pulled.authenticated is wanted
        assert {layer.proof.public for layer in image.layers if layer.proof} == {not wanted}
        assert len(fetched) == 2 * wanted
        fetched.clear()


async def test_nobody_speaks_with_the_tokens_of_another(serve: Serve, deadline: Deadline) -> None:
    registry = await serve(basic)
    registries = Registries(registry.http, {})
    nobody = await registries.client(registry.host)
    alice = await registries.client(registry.host, ALICE)
    assert alice is not nobody
    assert await registries.client(registry.host, Credentials("alice", ALICE.password)) is alice
    other = await registries.client(registry.host, WRONG)
    reference = parse_reference(f"{registry.host}/group/tool:1")
    assert await alice.head_digest(reference, deadline) == IMAGE.digest
    for client in (nobody, other):
        with pytest.raises(errors.RegistryAccessError):
            await client.head_digest(reference, deadline)
