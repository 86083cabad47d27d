"""A registry in this process that lies or breaks, for each repository in another way.

Each repository is a handler of its own; `Honest` serves an image as a good registry does, and what
lies derives from it. Nothing is real about it but the wire.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.images import BuiltImage

TAG = "1"
Lie = Callable[[web.Request, str, str], Awaitable[web.StreamResponse]]
"""The request, `manifests` or `blobs`, and of what name or digest."""


@dataclass
class Honest:
    """One image under the tag 1. Blobs may be others than those that were promised."""

    image: BuiltImage
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        images = [self.image, *self.image.children]
        self.documents = {each.digest: each for each in images} | {TAG: self.image}
        good = {each.config_digest: each.config for each in images if each.config}
        good |= {layer.digest: layer.blob for each in images for layer in each.layers}
        self.blobs = good | self.blobs

    async def __call__(self, request: web.Request, kind: str, name: str) -> web.StreamResponse:
        self.asked[name] += 1
        if kind == "manifests" and name in self.documents:
            found = self.documents[name]
            return web.Response(body=found.manifest, headers={"Content-Type": found.media_type})
        if kind == "blobs" and name in self.blobs:
            return await self.blob(request, name, self.blobs[name])
        return web.json_response({"errors": [{"code": "UNKNOWN"}]}, status=404)

    async def blob(self, request: web.Request, digest: str, blob: bytes) -> web.StreamResponse:
        start = first_byte(request)
        if not start:
            return web.Response(body=blob)
        headers = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"}
        return web.Response(status=206, body=blob[start:], headers=headers)


def first_byte(request: web.Request) -> int:
    asked = request.headers.get("Range", "")
    return int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0


@dataclass
class OfLayers(Honest):
    """Is honest but for layers, of which the first byte comes."""

    async def blob(self, request: web.Request, digest: str, blob: bytes) -> web.StreamResponse:
        if digest == self.image.config_digest:
            return await super().blob(request, digest, blob)
        return await self.layer(request, blob)

    async def layer(self, request: web.Request, blob: bytes) -> web.StreamResponse:
        raise NotImplementedError


class Endless(OfLayers):
    """Never ends a layer."""

    async def layer(self, request: web.Request, blob: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(blob)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(bytes(1 << 16))
        return response


class Dripping(OfLayers):
    """Sends a byte now and then."""

    async def layer(self, request: web.Request, blob: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(blob))})
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b"x")
            await asyncio.sleep(0.01)
        return response


@dataclass
class Resetting(OfLayers):
    """Closes every connection after so many bytes of a layer; knows ranges, or nothing of them."""

    every: int = 100_000
    ranges: str = "honoured"

    async def layer(self, request: web.Request, blob: bytes) -> web.StreamResponse:
        start = first_byte(request) if self.ranges != "ignored" else 0
        if start and self.ranges == "refused":
            return web.Response(status=416)
        headers = {"Content-Length": str(len(blob) - start)}
        if start:
            said = start - 1 if self.ranges == "wrong" else start
            headers["Content-Range"] = f"bytes {said}-{len(blob) - 1}/{len(blob)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(blob[start : start + self.every])
        if start + self.every < len(blob):
            assert request.transport is not None
            request.transport.close()
        return response


@dataclass
class Storming(Honest):
    """Answers with these states, in turn, before it gives anything, or with the last for ever."""

    states: tuple[int, ...] = (503,)
    passes: bool = True
    retry_after: str | None = None

    async def __call__(self, request: web.Request, kind: str, name: str) -> web.StreamResponse:
        so_far = self.asked.total()
        if not self.passes or so_far < len(self.states):
            state = self.states[min(so_far, len(self.states) - 1)]
            self.asked[name] += 1
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.Response(status=state, headers=headers)
        return await super().__call__(request, kind, name)


@dataclass
class Expiring(Honest):
    """Behind tokens that are good for so many requests; 0: for none, whoever asks."""

    uses: int = 1
    left: dict[str, int] = field(default_factory=dict)

    async def __call__(self, request: web.Request, kind: str, name: str) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.left.get(token, 0) == 0:
            # Of another token it says nothing, so that only the challenge tells.
            new = f"t{len(self.left)}"
            self.left[new] = self.uses
            realm = request.url.with_path(f"/token/{new}")
            challenge = f'Bearer realm="{realm}",service="lies"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        self.left[token] -= 1
        return await super().__call__(request, kind, name)


@dataclass
class Moving(Honest):
    """The tag is pushed anew, and the old parts are collected, once the manifest was read."""

    async def __call__(self, request: web.Request, kind: str, name: str) -> web.StreamResponse:
        response = await super().__call__(request, kind, name)
        self.blobs.clear()
        return response


@dataclass
class Saying(Honest):
    """Its manifest is what these headers say, or these bytes."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    async def __call__(self, request: web.Request, kind: str, name: str) -> web.StreamResponse:
        if kind == "manifests":
            body = self.image.manifest if self.body is None else self.body
            headers = {"Content-Type": self.image.media_type, **self.headers}
            return web.Response(body=body, headers=headers)
        return await super().__call__(request, kind, name)


def in_a_second() -> str:
    """As a Retry-After may say it; the header knows whole seconds."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


@asynccontextmanager
async def lying_registry(repositories: Mapping[str, Lie]) -> AsyncIterator[str]:
    """Its host, as references begin."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/token/"):
            return web.json_response({"token": path.rpartition("/")[2], "expires_in": 300})
        repository, _, rest = path.removeprefix("/v2/").partition("/manifests/")
        kind = "manifests"
        if not rest:
            repository, _, rest = path.removeprefix("/v2/").partition("/blobs/")
            kind = "blobs"
        lie = repositories.get(repository)
        if lie is None:
            return web.Response(status=404)
        return await lie(request, kind, rest)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.close()
