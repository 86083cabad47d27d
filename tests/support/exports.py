"""Images that stand in an image directory and in the catalog, for tests of exports."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from services.gateway.auth.identity import Scope
from services.gateway.auth.secrets import SiteSecret
from services.gateway.auth.tokens import Tokens
from shared.catalog.interface import Catalog
from shared.tasks import cancel_all
from tests.support.catalogs import opened, put, soon
from tests.support.conditions import eventually
from tests.support.gateways import Running, gateway
from tests.support.lifecycle import image, target
from tests.support.noise import noise
from tests.support.packing import Built, build_image, directory, member, tar_of
from tests.support.two_gateways import Pair

SIZE = 3_000_000
CHUNK = 16 << 10


def built(root: Path) -> Built:
    """Of some megabytes that stay as large as they are."""
    root.mkdir(exist_ok=True)
    tar = tar_of((member("data"), noise(SIZE)), (member("small"), b"hello"), directory("bin"))
    return build_image([tar], root)


@dataclass(frozen=True, slots=True)
class ExportSite:
    """Two gateways: `a` sees the image directory, `b` does not."""

    two: Pair
    catalog: Catalog
    images: Path
    source: Built

    async def ready(
        self,
        name: str,
        *,
        owner: int | None = None,
        readers: tuple[int, ...] = (),
        size: int | None = None,
    ) -> str:
        """An image of that name, READY, placed and known to both; its path in the API.

        With a size it is so large, and no image.
        """
        letter = {"debian": "a", "secret": "b"}[name]
        file = self.images / f"{letter * 64}.squashfs"
        shutil.copyfile(self.source.path, file)
        size = self.size if size is None else size
        os.truncate(file, size)
        record = image(name, letter, owner=owner, size=size, allowed_uids=readers)
        assert record.current is not None
        digest = {"content_digest": self.source.content_digest}
        current = record.current.model_copy(update=digest)
        await self.catalog.images.change(record.key, put(record.but(current=current)), soon())
        path = f"/images/cluster/docker/{quote(target(name).reference, safe='')}"
        token = self.two.token(0, Scope.ADMIN)

        async def known() -> bool:
            asked = [await each.bearer(token, path) for each in (self.two.a, self.two.b)]
            return all(said.status == 200 for said in asked)

        await eventually(known, within=10)
        return f"{path}/export"

    @property
    def size(self) -> int:
        return self.source.recipe.size


@asynccontextmanager
async def export_site(root: Path, source: Built, **settings: Any) -> AsyncIterator[ExportSite]:
    secret, images = root / "secret", root / "images"
    images.mkdir()
    tokens = Tokens(SiteSecret.load_or_make(secret))
    url = f"sqlite:///{root}/catalog.db"
    site = {"catalog": {"url": url}, "usage": {"flush_interval": 0.05}}
    sees = {"systems": {"cluster": {"image_dir": images}}}
    blind = {"systems": {"cluster": {"image_dir": root / "elsewhere"}}}
    async with (
        gateway(root / "a", site | sees, secret_file=secret, **settings) as a,
        gateway(root / "b", site | blind, secret_file=secret, **settings) as b,
        opened(url) as catalog,
    ):
        yield ExportSite(Pair(a, b, tokens), catalog, images, source)


@asynccontextmanager
async def breaking(running: Running, after: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A way to a gateway whose connections break after so many bytes of answer; and how many
    bytes each of them gave."""
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    given: list[int] = []
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection(host, int(port))
        at = len(given)
        given.append(0)
        up = asyncio.create_task(_pump(reader, here))
        try:
            while given[at] < after and (data := await there.read(CHUNK)):
                writer.write(data)
                await writer.drain()
                given[at] += len(data)
        except ConnectionError:
            pass
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            for each in (writer, here):
                each.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", given
    finally:
        server.close()
        await cancel_all(*serving)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
