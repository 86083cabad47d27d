"""`python -m bench.staging`: what it costs to bring an image to a node.

An image, and the next day's with another last layer, are copied in full and by what the node lacks,
and read in place and from the copy; then fifty jobs of five images start at once on a real agent.
Bytes are exact; ratios are of one run. As root, or images cannot be mounted.
"""

import argparse
import asyncio
import io
import os
import random
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

from services.converter.packing import Compressors, LayerDigests, pack_layer
from services.distributor.sidecars import write_sidecars
from services.node_agent.app import build
from services.node_agent.cache.copying import copy_image
from services.node_agent.cache.shelf import Shelf
from services.node_agent.cache.throttle import Throttle
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import Source
from services.node_agent.unmount import clear
from shared.bus.connect import connect_bus
from shared.config import Settings
from shared.deadline import Deadline
from shared.image.codecs import block_codec
from shared.image.making.weave import weave
from shared.image.planning.plan import plan_image, read_indexes
from shared.image.recipe import ImageConfig, PackKey, PackOptions, Recipe, SourceDigests
from shared.logging import configure_logging
from shared.settings.agent import CacheSettings
from shared.settings.site import LogSettings
from shared.store.store import PackStore

MIB: Final = 1 << 20
JOBS: Final = 50
IMAGES: Final = 5
NEVER: Final = threading.Event()
SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Image:
    """One in the shared directory."""

    path: Path
    recipe: Recipe

    def body(self) -> dict[str, Any]:
        return {
            "image_id": self.recipe.image_id,
            "content_digest": self.recipe.content_digest,
            "size": self.recipe.size,
        }


class Maker:
    """Makes images of layers that are named by a number and a size."""

    def __init__(self, root: Path) -> None:
        self._store = PackStore(root / "store")
        self._shared = root / "images"
        self._shared.mkdir()
        self._packs: dict[tuple[int, int], PackKey] = {}

    def image(self, *layers: tuple[int, int]) -> Image:
        keys = [self._pack(*layer) for layer in layers]
        indexes = read_indexes({k: self._store.pack_path(k) for k in keys}, cancelled=NEVER)
        none = "sha256:" + "0" * 64
        recipe, tables = plan_image(
            [(key, indexes[key]) for key in keys],
            options=PackOptions(),
            max_dead_share=1,
            config=ImageConfig(),
            source=SourceDigests(
                reference=none, manifest=none, config=none, layers=(none,) * len(keys)
            ),
            codec=block_codec("zstd", 3),
            open_pack=self._store.open_pack,
            cancelled=NEVER,
        )
        self._store.put_tables(tables)
        path = self._shared / f"{recipe.image_id}.squashfs"
        weave(recipe, self._store, path, on_progress=lambda _: None, cancelled=NEVER)
        write_sidecars(path, recipe)
        return Image(path, recipe)

    def _pack(self, seed: int, mib: int) -> PackKey:
        if (seed, mib) not in self._packs:
            self._packs[seed, mib] = self._made(layer(seed, mib))
        return self._packs[seed, mib]

    def _made(self, tar: bytes) -> PackKey:
        self._store.root.mkdir(exist_ok=True)
        fresh = self._store.root / "fresh.pack"
        with Compressors() as compressors:
            key = pack_layer(
                io.BytesIO(tar),
                expected=LayerDigests(),
                options=PackOptions(),
                out_path=fresh,
                compressors=compressors,
                on_progress=lambda _: None,
                cancelled=NEVER,
            ).key
        place = self._store.pack_path(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(place)
        return key


def layer(seed: int, mib: int) -> bytes:
    """Files that no codec makes smaller."""
    out, noise = io.BytesIO(), random.Random(seed)
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(mib):
            entry = tarfile.TarInfo(f"layer{seed}/file{number}")
            entry.size, entry.mode = MIB, 0o644
            tar.addfile(entry, io.BytesIO(noise.randbytes(MIB)))
    return out.getvalue()


def forget(path: Path) -> None:
    """Out of this machine's memory, so that it is read anew."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def shelf_in(directory: Path) -> Iterator[Shelf]:
    shelf = Shelf(directory, CacheSettings(reserve_bytes=0))
    shelf.open()
    try:
        yield shelf
    finally:
        shelf.close()


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def copied(image: Image, shelf: Shelf) -> tuple[float, int, int]:
    """Seconds, bytes of the shared directory, bytes of other copies."""
    forget(image.path)
    began = time.monotonic()
    tally = copy_image(image.recipe, image.path, shelf, Throttle(None), NEVER)
    return time.monotonic() - began, tally.copied, tally.saved


def read_all(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            path.read_bytes()


def mounted(mounter: LoopMounter, source: Source, target: Path) -> tuple[float, float]:
    """Seconds to mount, and to read everything for the first time."""
    forget(source.path)
    target.mkdir()
    seconds = timed(lambda: mounter.mount(source, target))
    try:
        return seconds, timed(lambda: read_all(target))
    finally:
        clear(target)


def report(what: str, seconds: float, of: float, read: int | None, size: int) -> None:
    amount = "" if read is None else f"{read / 1e6:10,.1f} MB shared {read / size:7.1%}"
    print(f"{what:34}{seconds:9.3f} s {seconds / of:7.2f}{amount}")


def one_image(root: Path, mib: int) -> None:
    maker = Maker(root)
    base = [(1, mib * 3 // 4), (2, mib // 4 - mib // 64)]
    yesterday = maker.image(*base, (3, max(1, mib // 64)))
    today = maker.image(*base, (4, max(1, mib // 64)))
    size = today.recipe.size
    with shelf_in(root / "cold") as shelf:
        full, read, _ = copied(today, shelf)
    print(f"an image of {size / 1e6:,.1f} MB; ratios to its copy in full, shares of its size")
    report("copy in full", full, full, read, size)
    with shelf_in(root / "warm") as shelf:
        copied(yesterday, shelf)
        seconds, read, saved = copied(today, shelf)
        report(f"delta ({saved / 1e6:,.0f} MB of yesterday's)", seconds, full, read, size)
        mounter = LoopMounter(root / "probe")
        copy = shelf.get(today.recipe.image_id)
        assert copy is not None
        for what, source in (
            ("in place", Source(today.path)),
            ("from the copy", Source(copy.path, cached=True)),
        ):
            mount, reading = mounted(mounter, source, root / "target")
            report(f"mount {what}", mount, full, None, size)
            report(f"  and read all of it once {what}", reading, full, None, size)


async def many_jobs(root: Path, mib: int) -> None:
    (root / "jobs").mkdir()
    maker = Maker(root / "jobs")
    images = [maker.image((1, mib), (10 + n, max(1, mib // 8))) for n in range(IMAGES)]
    for policy in ("copy", "in_place"):
        for image in images:
            forget(image.path)
        cache = {"dir": str(root / policy), "policy": policy, "reserve_bytes": 0, "patience": 600}
        settings = Settings.model_validate(
            {
                "data_dir": str(root / "jobs"),
                "agent": {"mount": "loop", "node": "bench", "cache": cache},
            }
        )
        agent = build(settings, connect_bus(settings, "bench"), serve_health=False)
        await agent.start(Deadline.after(SECONDS))
        try:
            began = time.monotonic()
            views = await asyncio.gather(*(prepared(settings, n, images) for n in range(JOBS)))
            seconds = time.monotonic() - began
            for number in range(JOBS):
                await asked(settings, "DELETE", f"/v1/jobs/{number}")
        finally:
            await agent.stop(Deadline.after(SECONDS))
        late = max(sum(mount["seconds"] for mount in view["mounts"]) for view in views)
        held = sum(path.stat().st_size for path in (root / policy).glob("*.squashfs"))
        print(
            f"{JOBS} jobs of {IMAGES} images, {policy}: all ready after {seconds:.2f} s, "
            f"the last mount after {late:.2f} s, {held / 1e6:,.0f} MB in the cache"
        )


async def prepared(settings: Settings, number: int, images: list[Image]) -> dict[str, Any]:
    body = {"images": [images[number % IMAGES].body()], "wait": SECONDS}
    view = await asked(settings, "POST", f"/v1/jobs/{number}/prepare", body)
    if view["state"] != "ready":
        sys.exit(f"job {number}: {view['message']}")
    return view


async def asked(settings: Settings, method: str, path: str, body: object = None) -> dict[str, Any]:
    connector = aiohttp.UnixConnector(str(settings.agent_dir / "agent.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://agent{path}", json=body) as answer,
    ):
        return await answer.json() if answer.status == 200 else {}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.staging", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="how large the image is")
    parser.add_argument("--work", type=Path, help="a directory for all of it")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("only root can mount images")
    configure_logging(LogSettings(level="error"))
    with TemporaryDirectory(prefix="staging-", dir=arguments.work) as directory:
        one_image(Path(directory), arguments.mib)
        shutil.rmtree(Path(directory) / "warm")
        asyncio.run(many_jobs(Path(directory), max(8, arguments.mib // 16)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
