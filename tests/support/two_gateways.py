"""Two gateways over one catalog, users with tokens, and streams that a test can read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from services.gateway.auth.identity import Scope
from services.gateway.auth.secrets import SiteSecret
from services.gateway.auth.tokens import Claims, Tokens
from shared.events import new_id
from tests.support.gateways import API, Running, gateway

READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Both gateways; what one of them is told, the other must know."""

    a: Running
    b: Running
    tokens: Tokens

    def token(self, uid: int, *more: Scope) -> str:
        now = time.time()
        scopes = frozenset({Scope.READ, Scope.PULL, *more})
        claims = Claims(
            id=new_id(), name=str(uid), scopes=scopes, issued=now, expires=now + 600, uid=uid
        )
        return self.tokens.sign(claims)


@asynccontextmanager
async def pair(directory: Path, catalog_url: str) -> AsyncIterator[Pair]:
    secret = directory / "secret"
    tokens = Tokens(SiteSecret.load_or_make(secret))
    site = {
        "catalog": {"url": catalog_url},
        "systems": {"cluster": {"image_dir": directory / "images"}},
    }
    async with (
        gateway(directory / "a", site, secret_file=secret) as a,
        gateway(directory / "b", site, secret_file=secret) as b,
    ):
        yield Pair(a, b, tokens)


@dataclass(slots=True)
class Told:
    """One server-sent event."""

    kind: str
    id: str | None
    data: dict[str, Any]


@dataclass(slots=True)
class Stream:
    """Server-sent events, as they come."""

    response: aiohttp.ClientResponse
    comments: list[str] = field(default_factory=list)

    async def next(self) -> Told | None:
        """The next event; None: the stream has ended."""
        async with asyncio.timeout(READ_SECONDS):
            found: dict[str, str] = {}
            async for line in self.response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    found[name] = value
                elif "data" in found:
                    kind, data = found["event"], json.loads(found["data"])
                    return Told(kind, found.get("id"), data)
                elif value:
                    self.comments.append(value)
            return None

    async def until(self, kind: str, **wanted: object) -> Told:
        """The next event of a kind with these values."""
        while told := await self.next():
            if told.kind == kind and wanted.items() <= told.data.items():
                return told
        message = f"the stream ended before {kind} {wanted}"
        raise AssertionError(message)


@asynccontextmanager
async def following(
    running: Running, path: str, *, token: str | None = None, last: str | None = None
) -> AsyncIterator[Stream]:
    headers = {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if last is not None:
        headers["Last-Event-ID"] = last
    async with running.network.get(f"{running.url}{API}{path}", headers=headers) as response:
        yield Stream(response)
