"""An in-process server that behaves, or misbehaves, as each test says, and a client of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import Credentials, RegistryEndpoint, registry_endpoint
from services.converter.registry.transport import Patience, open_session
from shared.deadline import Deadline
from shared.reference import ImageReference, parse_reference

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

QUICK = Patience(connect=2, silence=2, attempts=4, first_wait=0.001, longest_wait=0.005)


class Registry:
    """One misbehaving registry: who speaks to it, and how."""

    def __init__(self, server: TestServer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http
        self.host = f"127.0.0.1:{server.port}"
        self.reference: ImageReference = parse_reference(f"{self.host}/group/tool:1")

    @property
    def endpoint(self) -> RegistryEndpoint:
        return registry_endpoint(self.host, insecure=True)

    def client(
        self, credentials: Credentials | None = None, patience: Patience = QUICK
    ) -> RegistryClient:
        return RegistryClient(self.http, replace(self.endpoint, credentials=credentials), patience)


Serve = Callable[[Handler], Awaitable[Registry]]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture
async def serve(http: aiohttp.ClientSession) -> AsyncIterator[Serve]:
    """Start a server that gives every request to one handler."""
    servers: list[TestServer] = []

    async def start(handler: Handler) -> Registry:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await handler(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        server = TestServer(app, host="127.0.0.1")
        servers.append(server)
        await server.start_server()
        return Registry(server, http)

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(20)
