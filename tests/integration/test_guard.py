"""What a web page of a stranger may do to a gateway that its reader can reach: nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.front import behind_front

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def base() -> AsyncIterator[str]:
    async def done(_request: web.Request) -> web.Response:
        return web.json_response({})

    thing = web.route("*", "/thing", done)
    async with behind_front([thing], names=["dray.example.org"]) as address:
        yield f"http://{address}"


async def ask(base: str, method: str, headers: dict[str, str], body: bytes | None) -> Any:
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
        http.request(method, f"{base}/thing", headers=headers, data=body) as response,
    ):
        return response.status, (await response.json(content_type=None)).get("code")


@pytest.mark.parametrize(
    ("method", "headers", "body", "expected"),
    [
        ("GET", {}, None, (200, None)),
        ("GET", {"Host": "dray.example.org:7600"}, None, (200, None)),
        ("GET", {"Host": "[::1]:7600"}, None, (200, None)),
        ("GET", {"Host": "localhost"}, None, (200, None)),
        ("GET", {"Host": "evil.example"}, None, (421, "unknown_host")),
        ("DELETE", {"Host": "evil.example"}, None, (421, "unknown_host")),
        ("POST", JSON, b"{}", (200, None)),
        ("POST", {}, None, (200, None)),
        ("POST", {"Content-Type": "text/plain"}, b"{}", (415, "not_json")),
        ("POST", {}, b"{}", (415, "not_json")),
        ("POST", {**JSON, "Origin": "http://evil.example"}, b"{}", (403, "foreign_origin")),
        ("DELETE", {"Origin": "null"}, None, (403, "foreign_origin")),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, None, (403, "foreign_origin")),
        ("POST", {"Sec-Fetch-Site": "same-site"}, None, (403, "foreign_origin")),
        ("POST", {**JSON, "Sec-Fetch-Site": "same-origin"}, b"{}", (200, None)),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, None, (200, None)),
    ],
)
async def test_requests_of_strangers_pages(
    method: str, headers: dict[str, str], body: bytes | None, expected: Any, base: str
) -> None:
    assert await ask(base, method, headers, body) == expected


async def test_our_own_page_may_ask(base: str) -> None:
    own = {**JSON, "Origin": base}
    assert await ask(base, "POST", own, b"{}") == (200, None)


@pytest.mark.parametrize(
    ("header", "status"),
    [(b"Host: \xff\xfe", b"421"), (b"Host: localhost\r\nOrigin: http://[", b"403")],
)
async def test_headers_that_are_no_text_are_refused_like_any_other(
    base: str, header: bytes, status: bytes
) -> None:
    host, _, port = base.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /thing HTTP/1.1\r\n" + header + b"\r\nConnection: close\r\n\r\n")
    answered = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answered.split(b" ")[1] == status
    assert b'"code":' in answered
