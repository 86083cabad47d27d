"""Mirrors before a registry: who is asked in which order, what passes on, and who sees what.

Every server is a real one on the wire, and counts what it is asked and shown.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from services.converter.registries import Registries
from services.converter.registry import errors
from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import Credentials
from services.converter.registry.platforms import parse_platform
from services.converter.registry.transport import Patience, open_session
from shared.deadline import Deadline
from shared.reference import parse_reference
from shared.settings.site import RegistrySettings
from shared.settings.types import this_platform
from tests.support.images import BuiltImage, File, build_image, layer_of, sha256
from tests.support.lying_registry import TAG, Honest, Lie, Resetting, Saying, lying_registry
from tests.support.noise import noise
from tests.support.ports import free_port

HERE = parse_platform(this_platform())
QUICK = Patience(attempts=2, first_wait=0.001, longest_wait=0.002, busy=1)
OLD = build_image([layer_of({"f": File(noise(900_000))})])
NEW = build_image([layer_of({"g": File(noise(1000))})])
NAME = "team/tool"


@dataclass
class Watched:
    """A repository, and who asked for it how."""

    lie: Lie
    shown: list[str | None] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    wants_login: bool = False

    async def __call__(self, request: web.Request, kind: str, name: str) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        self.shown.append(authorization)
        self.asked.append(f"{kind} {request.headers.get('Range', '')}".strip())
        if self.wants_login and authorization is None:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return await self.lie(request, kind, name)


class World:
    """A registry, and mirrors before it, as a site's settings have them."""

    def __init__(self, http: aiohttp.ClientSession, stack: AsyncExitStack) -> None:
        self._http = http
        self._stack = stack
        self.settings: dict[str, RegistrySettings] = {}
        self.origin = ""

    async def serve(self, repository: Lie, name: str = NAME) -> str:
        return await self._stack.enter_async_context(lying_registry({name: repository}))

    async def client(self, *mirrors: str, user: Credentials | None = None) -> RegistryClient:
        settings = self.settings.get(self.origin, RegistrySettings())
        self.settings[self.origin] = settings.model_copy(update={"mirrors": mirrors})
        return await Registries(self._http, self.settings, QUICK, {}).client(self.origin, user)

    async def pull(self, client: RegistryClient) -> bytes:
        """The first layer."""
        deadline = Deadline.after(20)
        reference = parse_reference(f"{self.origin}/{NAME}:{TAG}")
        found = await client.resolve(reference, HERE, deadline)
        assert found.reference == reference
        blob = b""
        async with aclosing(client.stream_blob(reference, found.layers[0], deadline)) as chunks:
            async for chunk in chunks:
                blob += chunk
        assert sha256(blob) == found.layers[0].digest
        return blob


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_session())
        yield World(http, stack)


def blob_of(image: BuiltImage) -> bytes:
    return image.layers[0].blob


async def test_the_first_mirror_that_has_it_gives_it(world: World) -> None:
    origin, first, second = Watched(Honest(OLD)), Watched(Honest(NEW)), Watched(Honest(OLD))
    world.origin = await world.serve(origin)
    empty = await world.serve(Honest(OLD), "other/thing")
    below = await world.serve(first, f"hub/cache/{NAME}")
    last = await world.serve(second)
    client = await world.client(f"127.0.0.1:{free_port()}", empty, f"{below}/hub/cache", last)
    assert await world.pull(client) == blob_of(NEW)
    deadline = Deadline.after(20)
    reference = parse_reference(f"{world.origin}/{NAME}:{TAG}")
    assert await client.head_digest(reference, deadline) == NEW.digest
    assert (origin.asked, second.asked) == ([], [])


async def test_what_no_mirror_has_comes_from_the_registry_itself(world: World) -> None:
    origin = Watched(Honest(OLD))
    world.origin = await world.serve(origin)
    empty = await world.serve(Honest(OLD), "other/thing")
    assert await world.pull(await world.client(empty)) == blob_of(OLD)
    assert origin.asked
    world.origin = f"127.0.0.1:{free_port()}"
    with pytest.raises(errors.RegistryUnreachableError) as caught:
        await world.pull(await world.client(empty))
    # Both say what is wrong with them: either may be what can be repaired.
    assert f"nothing answers at {world.origin}" in caught.value.message
    assert f"mirrors were asked before: {empty}: " in caught.value.message


async def test_a_layer_goes_on_where_its_mirror_broke_off(world: World) -> None:
    origin, mirror = Watched(Honest(OLD)), Watched(Resetting(OLD, every=200_000, ranges="ignored"))
    world.origin = await world.serve(origin)
    client = await world.client(await world.serve(mirror))
    assert await world.pull(client) == blob_of(OLD)
    [asked] = origin.asked
    assert asked == f"blobs bytes=200000-{len(blob_of(OLD)) - 1}"
    # It is left alone for a while now.
    mirror.asked.clear()
    assert await world.pull(client) == blob_of(OLD)
    assert mirror.asked == []


async def test_a_mirror_that_lies_is_found_out_and_passed_over(world: World) -> None:
    digest = OLD.layers[0].digest
    world.origin = await world.serve(Honest(OLD))
    forged = Watched(Honest(OLD, {digest: bytes(len(blob_of(OLD)))}))
    client = await world.client(host := await world.serve(forged))
    with pytest.raises(errors.ContentMismatchError, match=f"came from {host}") as caught:
        await world.pull(client)
    assert caught.value.retryable, "so that the pull is tried again, by itself"
    assert await world.pull(client) == blob_of(OLD)
    saying = Saying(NEW, headers={"Docker-Content-Digest": OLD.digest})
    assert await world.pull(await world.client(await world.serve(saying))) == blob_of(OLD)


async def test_each_is_shown_its_own_credentials_alone(world: World, tmp_path: Path) -> None:
    origin = Watched(Honest(OLD), wants_login=True)
    mirror = Watched(Resetting(OLD, every=200_000, ranges="ignored"), wants_login=True)
    world.origin, host = await world.serve(origin), await world.serve(mirror)
    for name, password in ((world.origin, "of-origin"), (host, "of-mirror")):
        file = tmp_path / password
        file.write_text(f"{password}\n")
        file.chmod(0o400)
        world.settings[name] = RegistrySettings(username="site", password_file=file)
    assert await world.pull(await world.client(host)) == blob_of(OLD)
    basic = {name: aiohttp.encode_basic_auth("site", name) for name in ("of-origin", "of-mirror")}
    assert set(mirror.shown) == {None, basic["of-mirror"]}
    assert set(origin.shown) == {None, basic["of-origin"]}
    # A user's login is for the registry that it was made for.
    mirror.shown.clear()
    client = await world.client(host, user=Credentials("alice", "secret"))
    assert await world.pull(client) == blob_of(OLD)
    assert mirror.shown == []
