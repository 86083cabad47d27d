"""Shifter's wire, byte for byte: what its client sends, and what comes back, over a bare socket."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.support.conditions import eventually
from tests.support.images import Pusher, build_image, layer_of
from tests.support.munged import Munged
from tests.support.registry import DebianRegistry
from tests.support.site import Site

SECONDS = 30.0
POLLED = {"MISSING", "INIT", "PENDING", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER"}
CONFIG = {"Env": ["A=b", "PATH=/bin"], "WorkingDir": "/srv", "Entrypoint": ["/bin/run"]}
IMPORTER = 4203
"""The only user who may import."""
USER, PASSWORD = "robot", "to:ken\"with'all\\of:it"


@dataclass(frozen=True, slots=True)
class Raw:
    """One answer. `head` is all of its lines, as they came."""

    head: tuple[str, ...]
    content: bytes

    @property
    def status(self) -> int:
        return int(self.head[0].split()[1])

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    def header(self, name: str) -> list[str]:
        """Every value of it."""
        lines = (line.partition(":") for line in self.head[1:])
        return [value.strip() for key, _, value in lines if key.lower() == name.lower()]


async def exchange(url: str, request: bytes) -> Raw:
    """Send these bytes; the connection stays open for more, as curl leaves it."""
    host, _, port = url.removeprefix("http://").partition(":")
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
            raw = Raw(tuple(head), b"")
            # Nothing but a length says where it ends: the client understands nothing else.
            (length,) = raw.header("Content-Length")
            return Raw(raw.head, await reader.readexactly(int(length)))
        finally:
            writer.close()
            await writer.wait_closed()


def as_client(
    url: str, method: str, path: str, credential: str | None = None, body: bytes = b""
) -> bytes:
    """The request as the C client makes it, header by header."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {url.removeprefix('http://')}", "Accept: */*"]
    if credential is not None:
        lines.append(f"authentication:{credential}")
    if method == "POST":
        lines += ["Content-type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def escaped(reference: str) -> str:
    """As libcurl's curl_easy_escape has it."""
    return quote(reference, safe="")


def image_path(action: str, reference: str) -> str:
    return f"/api/{action}/cluster/docker/{escaped(reference)}/"


@dataclass(frozen=True, slots=True)
class Wire:
    """A site, and somebody who speaks to its gateway as the C client does."""

    site: Site
    munged: Munged
    registry: DebianRegistry
    locked: DebianRegistry
    """Lets in only who has the password."""

    def reference(self, tag: str) -> str:
        return f"{self.registry.host}/team/app:{tag}"

    def push(self, tag: str, content: bytes = b"hello\n", *, locked: bool = False) -> str:
        image = build_image([layer_of({"etc/motd": content})], run=CONFIG)
        if locked:
            Pusher(self.locked.url, login=(USER, PASSWORD)).push(image, "team/app", tag)
            return f"{self.locked.host}/team/app:{tag}"
        Pusher(self.registry.url).push(image, "team/app", tag)
        return self.reference(tag)

    async def ask(self, method: str, path: str, body: bytes = b"") -> Raw:
        """As root: one fresh credential for each request, without a payload."""
        credential = self.munged.credential()
        return await self.send(as_client(self.site.url, method, path, credential, body))

    async def public(self, method: str, path: str) -> Raw:
        return await self.send(as_client(self.site.url, method, path))

    async def send(self, request: bytes) -> Raw:
        return await exchange(self.site.url, request)

    async def pulled(self, reference: str) -> dict[str, object]:
        """Pull as the client does: POST until the word is none that it polls on."""
        record: dict[str, object] = {}

        async def ended() -> bool:
            nonlocal record
            record = (await self.ask("POST", image_path("pull", reference))).body
            return record["status"] not in POLLED

        await eventually(ended, within=60)
        return record


def check_form(answer: Raw, status: int = 200) -> None:
    """What the client needs before it even looks at the content."""
    assert answer.status == status
    assert answer.header("Content-Type") == ["application/json"]
    assert answer.header("Transfer-Encoding") == []
    assert answer.header("Content-Length") == [str(len(answer.content))]
    assert answer.content
