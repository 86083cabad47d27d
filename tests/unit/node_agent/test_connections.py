"""One user's connections leave room for the others'."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.node_agent.inside.site_view import SiteInsides
from services.node_agent.local_api import LocalApi
from services.node_agent.preparing import Preparing
from services.node_agent.programs import Programs
from shared.api import AgentStatus, MountRequest
from shared.http.connections import Connections
from shared.settings.inside import InsideSettings
from tests.support.conditions import eventually

from .conftest import PATIENCE, Node

REQUEST = b"GET /v1/status HTTP/1.1\r\nHost: agent\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(node: Node, path: Path, connections: Connections) -> AsyncIterator[Path]:
    def status() -> AgentStatus:
        return AgentStatus(
            node="n1", system="local", bus_connected=False, mounter="unpack", mounts=(), jobs={}
        )

    api = LocalApi(
        path,
        connections,
        jobs=node.jobs,
        preparing=Preparing(node.jobs, None),
        programs=Programs(node.holds),
        furnishing=None,
        site=SiteInsides(InsideSettings()),
        cache=None,
        status=status,
    )
    await api.start()
    try:
        yield path
    finally:
        await api.stop()


async def answer(path: Path, request: bytes = REQUEST) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(reader.read(), PATIENCE)
        return b""
    finally:
        writer.close()


async def test_who_has_too_many_connections_is_told_until_one_is_closed(
    node: Node, tmp_path: Path
) -> None:
    async with serving(node, tmp_path / "s", Connections(2, frozenset(), 5.0)) as path:
        idle = [await asyncio.open_unix_connection(path) for _ in range(2)]
        refused = await answer(path, b"")
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"too_many_connections" in refused
        idle[0][1].close()

        async def is_let_in() -> bool:
            return (await answer(path)).startswith(b"HTTP/1.1 200 ")

        await eventually(is_let_in, within=PATIENCE)
        for _ in range(5):  # what was answered is closed, and counts no more
            await eventually(is_let_in, within=PATIENCE)
        idle[1][1].close()


async def test_free_users_have_any_number(node: Node, tmp_path: Path) -> None:
    async with serving(
        node, tmp_path / "s", Connections(1, frozenset({os.geteuid()}), 5.0)
    ) as path:
        idle = [await asyncio.open_unix_connection(path) for _ in range(5)]
        assert (await answer(path)).startswith(b"HTTP/1.1 200 ")
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v1/status HTTP/1.1\r\nHost:",
        b"POST /v1/mounts HTTP/1.1\r\nHost: agent\r\nContent-Length: 10\r\n\r\n{",
    ],
)
async def test_a_connection_without_a_whole_request_is_closed(
    node: Node, tmp_path: Path, sent: bytes
) -> None:
    connections = Connections(1, frozenset(), seconds=0.1)
    async with serving(node, tmp_path / "s", connections) as path:
        assert await answer(path, sent) == b""
        assert (await answer(path)).startswith(b"HTTP/1.1 200 ")


async def test_a_mount_may_take_longer_than_its_request(node: Node, tmp_path: Path) -> None:
    image = node.image("a")
    body = MountRequest(job_id="j", wait=PATIENCE, **image.model_dump()).model_dump_json().encode()
    head = b"POST /v1/mounts HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n" % len(body)
    node.mounter.gate.clear()
    connections = Connections(1, frozenset(), seconds=0.1)
    async with serving(node, tmp_path / "s", connections) as path:
        asyncio.get_running_loop().call_later(0.5, node.mounter.gate.set)
        assert (await answer(path, head + body)).startswith(b"HTTP/1.1 200 ")
