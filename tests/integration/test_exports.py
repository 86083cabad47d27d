"""An image's file over HTTP: all of it or any part, to whoever may look the image up."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.gateway.auth.identity import Scope
from tests.support.conditions import eventually
from tests.support.exports import ExportSite, built, export_site
from tests.support.gateways import API, Running
from tests.support.packing import Built

ADA, BOB, EVE = 1000, 2000, 3000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory.mktemp("source"))


@pytest.fixture
async def site(tmp_path: Path, source: Built) -> AsyncIterator[ExportSite]:
    async with export_site(tmp_path, source, exports_per_user=2) as site:
        yield site


async def fetched(
    running: Running, path: str, *, token: str | None = None, method: str = "GET", **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named["Authorization"] = f"Bearer {token}"
    async with running.network.request(method, f"{running.url}{API}{path}", headers=named) as got:
        return got.status, await got.read(), got.headers


async def test_all_of_it_and_any_part(site: ExportSite) -> None:
    path = f"{await site.ready('debian')}/squashfs"
    content, a, size = site.source.path.read_bytes(), site.two.a, site.size
    etag = f'"{site.source.content_digest}"'
    status, body, headers = await fetched(a, path)
    assert (status, body) == (200, content)
    assert (headers["ETag"], headers["Accept-Ranges"]) == (etag, "bytes")
    status, body, headers = await fetched(a, path, method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(size))
    parts = {
        "bytes=0-0": (0, 1),
        "bytes=1000-1999": (1000, 2000),
        f"bytes={size - 3}-": (size - 3, size),
        "bytes=-10": (size - 10, size),
        f"bytes=700000-{size * 9}": (700_000, size),
    }
    for asked, (start, end) in parts.items():
        status, body, headers = await fetched(a, path, Range=asked, If_Match=etag)
        assert (status, body) == (206, content[start:end]), asked
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert headers["Content-Length"] == str(end - start)
    for asked in ("bytes=0-1,5-6", "lines=1-2", "bytes=x"):
        assert (await fetched(a, path, Range=asked))[0] == 200, "what is not understood is not said"
    assert (await fetched(a, path, Range=f"bytes={size}-"))[0] == 416
    for said, status in ((etag, 206), ('"another"', 200), ("Sat, 01 Nov 2025 00:00:00 GMT", 200)):
        got = await fetched(a, path, Range="bytes=9-", If_Range=said)
        assert got[:2] == (status, content[9:] if status == 206 else content), said
    status, body, _ = await fetched(a, path, If_Match='"another"')
    assert status == 412
    assert b"image_changed" in body


async def test_who_may_look_it_up_may_have_it(site: ExportSite) -> None:
    path = await site.ready("secret", owner=ADA, readers=(BOB,))
    two = site.two
    for token, status in (
        (two.token(ADA), 200),
        (two.token(BOB), 200),
        (two.token(0, Scope.ADMIN), 200),
        (two.token(EVE), 404),
        (None, 404),
    ):
        got = await fetched(two.a, path, token=token)
        assert got[0] == status, got[1]
        assert (await fetched(two.a, f"{path}/squashfs", token=token))[0] == status
    said = await two.a.bearer(two.token(BOB), path)
    assert said.body["private"] is True
    assert said.body["file"] == str(site.images / f"{'b' * 64}.squashfs")
    by_id = f"/images/_/id/{'b' * 64}/export"
    assert (await fetched(two.a, by_id, token=two.token(ADA)))[0] == 200
    assert (await fetched(two.a, by_id, token=two.token(EVE)))[0] == 404
    public = await two.a.ask(await site.ready("debian"))
    assert public.body["file"] is None, "nobody in particular has no file system here"
    assert public.body["content_digest"] == site.source.content_digest


async def test_one_export_is_one_use(site: ExportSite) -> None:
    path = await site.ready("debian")
    token, etag = site.two.token(BOB), f'"{site.source.content_digest}"'
    await fetched(site.two.a, path, token=token)
    for start in (0, 1000, 2000):
        asked = {"Range": f"bytes={start}-", "If_Match": etag}
        await fetched(site.two.a, f"{path}/squashfs", token=token, **asked)
    await fetched(site.two.a, f"{path}/squashfs", token=token)

    async def counted() -> int:
        items = (await site.two.a.bearer(token, "/usage?by=user")).body["items"]
        return sum(item["lookups"] for item in items)

    await eventually(counted, within=5)
    await eventually(lambda: counted_is(counted, 2), within=5)


async def counted_is(count: Any, wanted: int) -> bool:
    return bool(await count() == wanted)


async def test_a_gateway_that_has_not_the_file_says_so(site: ExportSite) -> None:
    path = f"{await site.ready('debian')}/squashfs"
    status, body, _ = await fetched(site.two.b, path)
    assert status == 503
    assert b"export_unavailable" in body
    with (site.images / f"{'a' * 64}.squashfs").open("ab") as file:
        file.write(b"more")
    assert (await fetched(site.two.a, path))[0] == 503


async def test_one_user_has_so_many_at_a_time(site: ExportSite) -> None:
    path = f"{await site.ready('debian', size=64 << 20)}/squashfs"
    a, token = site.two.a, site.two.token(BOB)
    url, headers = f"{a.url}{API}{path}", {"Authorization": f"Bearer {token}"}
    # Who does not read holds a turn: no socket takes all of that.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as slow:
        held = [await slow.get(url, headers=headers) for _ in range(2)]
        status, body, more = await fetched(a, path, token=token, Range="bytes=0-9")
        assert (status, b"too_many_exports" in body) == (429, True)
        assert int(more["Retry-After"]) > 0
        others = await fetched(a, path, token=site.two.token(EVE), Range="bytes=0-9")
        assert others[0] == 206, "they have turns of their own"
        for each in held:
            each.close()

    async def free() -> bool:
        return (await fetched(a, path, token=token, Range="bytes=0-9"))[0] == 206

    await eventually(free, within=10)


async def test_what_is_read_goes_on_when_the_image_goes(site: ExportSite) -> None:
    path = f"{await site.ready('debian')}/squashfs"
    url = f"{site.two.a.url}{API}{path}"
    async with site.two.a.network.get(url) as response:
        first = await response.content.readexactly(1000)
        await asyncio.to_thread((site.images / f"{'a' * 64}.squashfs").unlink)
        rest = await response.read()
    assert first + rest == site.source.path.read_bytes()
    assert (await fetched(site.two.a, path))[0] == 503
