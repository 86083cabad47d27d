"""A real gateway in the test's own process, over SQLite and the embedded bus."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from services.gateway.app import build
from shared.bus.connect import connect_bus
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from tests.support.users import AS_NOBODY, ordinary_environment, ordinary_python

API = "/api/v1"
ASK_BY_SOCKET = """
import http.client, json, socket, sys
path, method, target, body = sys.argv[1:]
connection = http.client.HTTPConnection("localhost", timeout=20)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
connection.request(method, target, body, {"Content-Type": "application/json"})
answer = connection.getresponse()
print(json.dumps([answer.status, json.loads(answer.read())]))
"""


@dataclass(frozen=True, slots=True)
class Said:
    """One answer."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def code(self) -> str | None:
        return self.body.get("code")


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that listens on a port and a socket."""

    url: str
    socket: Path
    network: aiohttp.ClientSession
    local: aiohttp.ClientSession

    async def ask(
        self, path: str, method: str = "GET", body: object = None, **headers: str
    ) -> Said:
        """Over the network; `headers` are written with underscores."""
        return await _said(self.network, method, f"{self.url}{API}{path}", body, headers)

    async def ask_locally(self, path: str, method: str = "GET", body: object = None) -> Said:
        """Over the socket, as whoever runs the test."""
        return await _said(self.local, method, f"http://localhost{API}{path}", body, {})

    async def munge(self, credential: str, path: str = "/whoami") -> Said:
        return await self.ask(path, authorization=f"MUNGE {credential}")

    async def bearer(
        self, token: str, path: str = "/whoami", method: str = "GET", body: object = None
    ) -> Said:
        return await self.ask(path, method, body, authorization=f"Bearer {token}")

    def ask_as_nobody(
        self, path: str, method: str = "GET", body: object = None
    ) -> tuple[int, dict[str, Any]]:
        """Over the socket, from a process of another user; blocks. Needs root."""
        done = subprocess.run(
            [
                ordinary_python(), "-c", ASK_BY_SOCKET,
                self.socket, method, f"{API}{path}", json.dumps(body) if body else "",
            ],
            env=ordinary_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **AS_NOBODY,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        status, answer = json.loads(done.stdout)
        return status, answer

    def dray(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command, as a user would run it who has none of our variables; blocks."""
        clean = {name: value for name, value in os.environ.items() if name[:5] != "DRAY_"}
        return subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", *arguments],
            env=clean | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@asynccontextmanager
async def gateway(
    directory: Path,
    site: Mapping[str, Any] = MappingProxyType({}),
    *,
    bus: Bus | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """`settings` are those of the section `gateway`, and `site` of all others."""
    section = {"listen": "127.0.0.1:0", **settings}
    given = Settings.model_validate({"data_dir": directory, **site, "gateway": section})
    directory.mkdir(exist_ok=True)
    service = build(given, bus or connect_bus(given, "test"))
    try:
        await service.start(Deadline.after(30))
        connector = aiohttp.UnixConnector(path=str(given.gateway_socket))
        async with (
            aiohttp.ClientSession() as network,
            aiohttp.ClientSession(connector=connector) as local,
        ):
            url = f"http://{service.http.address}"
            yield Running(url, given.gateway_socket, network, local)
    finally:
        await service.stop(Deadline.after(30))


async def _said(
    session: aiohttp.ClientSession, method: str, url: str, body: object, headers: Mapping[str, str]
) -> Said:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.request(method, url, json=body, headers=named) as response:
        text = await response.text()
        return Said(response.status, json.loads(text) if text else {}, response.headers)
