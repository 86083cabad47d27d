"""Pulls through the converter from a registry that lies or breaks: how each ends, and what stays.

One converter, and one registry with a repository for each row. All are pulled at a time, so that no
row disturbs another.
"""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import zstandard

from services.converter.conversion import Conversion
from services.converter.imports import Imports
from services.converter.layers import LayerPacker
from services.converter.origins import Origins
from services.converter.packers.packers import Packers
from services.converter.packing.limits import Limits
from services.converter.pulls import Pulls
from services.converter.registries import Registries
from services.converter.registry.platforms import Platform
from services.converter.registry.transport import Patience, open_session
from services.converter.tickets import TicketOffice
from services.converter.user_files.as_user import Users
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import GATEWAY_EVENTS, work_queues
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import ImageConverted, PullFailed, PullRequested
from shared.image.recipe import PackOptions
from shared.settings.types import this_platform
from shared.store.store import PackStore
from tests.support.bus import Recorder
from tests.support.conditions import eventually
from tests.support.images import (
    BuiltImage,
    BuiltLayer,
    File,
    build_image,
    build_index,
    layer_from_tar,
    layer_of,
    sha256,
)
from tests.support.lying_registry import (
    TAG,
    Dripping,
    Endless,
    Expiring,
    Honest,
    Lie,
    Moving,
    Resetting,
    Saying,
    Storming,
    in_a_second,
    lying_registry,
)

MIB: Final = 1 << 20
LIMITS: Final = Limits(max_bytes=24 * MIB, max_ratio=100, ratio_from=8 * MIB)
QUICK: Final = Patience(
    silence=5,
    window=0.3,
    attempts=4,
    busy=4,
    busy_answers=5,
    first_wait=0.001,
    longest_wait=0.005,
)


def noisy(name: str, size: int = 400_000) -> BuiltLayer:
    """A layer that no other row has, larger than what a resetting connection brings."""
    return layer_of({name: File(os.urandom(size))})


def one(**_: object) -> BuiltImage:
    return build_image([noisy("f")])


def blob_of(tar: bytes, blob: bytes) -> BuiltLayer:
    """A layer with its own kind of compression."""
    return replace(layer_from_tar(tar, "none"), blob=blob, digest=sha256(blob), compression="gzip")


def tar_of(name: str) -> bytes:
    return layer_of({name: File(os.urandom(300_000))}, "none").blob


def halves(tar: bytes) -> tuple[bytes, bytes]:
    return tar[:100_001], tar[100_001:]


def changed(image: BuiltImage, change: dict[str, Any], layer: dict[str, Any]) -> BuiltImage:
    """The same with another manifest."""
    manifest = json.loads(image.manifest) | change
    manifest["layers"] = [each | layer for each in manifest["layers"]]
    body = json.dumps(manifest).encode()
    return replace(image, manifest=body, digest=sha256(body))


def lying_about_diff_ids() -> BuiltImage:
    good = one()
    return build_image([replace(good.layers[0], diff_id=sha256(b"other"))])


def damaged(image: BuiltImage, blob: bytes) -> Honest:
    return Honest(image, {image.layers[0].digest: blob})


@dataclass(frozen=True)
class Row:
    """A lie, and what a pull of it comes to: READY, or an error's code with words of its advice."""

    lie: Lie
    code: str | None = None
    says: str = ""
    retryable: bool = False


def rows() -> dict[str, Row]:
    short, long, wrong = one(), one(), one()
    mixed, frames, members, trailing = (tar_of(f"t{n}") for n in range(4))
    zstd = zstandard.ZstdCompressor(level=1)
    layers = [layer_of({f"l{n}": bytes([n])}) for n in range(127)]
    same = noisy("same")
    indexed = build_index({Platform("linux", "s390x"): build_image([noisy("f")])})
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    zeros, noise = bytes(30 * MIB), os.urandom(64 * 1024)
    squeezed = layer_of({"zeros": File(bytes(10 * MIB))})
    return {
        "wrong-digest": Row(
            damaged(wrong, bytes(len(wrong.layers[0].blob))), "layer_mismatch", "try again", True
        ),
        "one-bit": Row(
            damaged(long, long.layers[0].blob[:-1] + b"\xff"), "layer_mismatch", "digest", True
        ),
        "wrong-diff-id": Row(Honest(lying_about_diff_ids()), "layer_mismatch", "diff id", True),
        "wrong-manifest": Row(
            Saying(one(), headers={"Docker-Content-Digest": sha256(b"x")}),
            "content_mismatch",
            "try again, and if it stays so, push",
            True,
        ),
        "short-blob": Row(
            damaged(short, short.layers[0].blob[:-9]), "content_mismatch", "fewer bytes", True
        ),
        "endless-blob": Row(Endless(one()), "content_mismatch", "more bytes", True),
        "slow-drip": Row(Dripping(one()), "registry_too_slow", "try again later", True),
        "reset-at-every-100000th-byte": Row(Resetting(one())),
        "reset-without-ranges": Row(
            Resetting(one(), ranges="ignored"), "registry_connection_lost", "try again", True
        ),
        "reset-and-416": Row(
            Resetting(one(), ranges="refused"), "registry_connection_lost", "try again", True
        ),
        "reset-and-another-range": Row(
            Resetting(one(), ranges="wrong"), "registry_protocol", "another range"
        ),
        "reset-at-every-byte": Row(
            Resetting(one(), every=1), "registry_connection_lost", "try again", True
        ),
        "storm-that-passes": Row(Storming(one(), states=(500, 503, 502))),
        "limit-that-passes": Row(Storming(one(), states=(429, 429), retry_after="0")),
        "limit-until-a-date": Row(Storming(one(), states=(429,), retry_after=in_a_second())),
        "500-for-ever": Row(
            Storming(one(), states=(500,), passes=False), "registry_busy", "error of its own", True
        ),
        "503-for-ever": Row(
            Storming(one(), states=(503,), passes=False), "registry_busy", "overloaded", True
        ),
        "429-for-ever": Row(
            Storming(one(), states=(429,), passes=False), "registry_busy", "log in", True
        ),
        "429-for-an-hour": Row(
            Storming(one(), states=(429,), passes=False, retry_after="3600"),
            "registry_busy",
            "try again in 3600 s",
            True,
        ),
        "token-expires-in-mid-pull": Row(Expiring(one(), uses=1)),
        "no-token-is-enough": Row(
            Expiring(one(), uses=0), "registry_access_refused", "log in first: dray login"
        ),
        "tag-moved": Row(Moving(one()), "image_incomplete", "tag may have moved", True),
        "not-our-platform": Row(Honest(indexed), "platform_not_found", "only for linux/s390x"),
        "foreign-layer": Row(
            Honest(changed(one(), {}, {"mediaType": foreign})),
            "unsupported_image",
            "non-distributable layers included",
        ),
        "schema-1": Row(
            Saying(one(), body=b'{"schemaVersion": 1, "fsLayers": []}'),
            "unsupported_image",
            "schema 1: push it again",
        ),
        "no-manifest": Row(Saying(one(), body=b"<html>"), "registry_protocol", "not valid"),
        "gzip-with-trailing-bytes": Row(
            Honest(build_image([blob_of(trailing, gzip.compress(trailing, 1) + b"trailing")]))
        ),
        "gzip-of-several-members": Row(
            Honest(
                build_image(
                    [blob_of(members, b"".join(gzip.compress(h, 1) for h in halves(members)))]
                )
            )
        ),
        "zstd-of-several-frames": Row(
            Honest(
                build_image(
                    [
                        blob_of(
                            frames,
                            skippable + b"".join(zstd.compress(h) for h in halves(frames)),
                        )
                    ]
                )
            )
        ),
        "gzip-that-ends-early": Row(
            Honest(build_image([blob_of(mixed, gzip.compress(mixed, 1)[:-100])])),
            "layer_invalid",
            "make the image again",
        ),
        "bomb-by-bytes": Row(
            Honest(build_image([layer_of({"z": File(zeros)})])), "layer_too_large", "24 MiB"
        ),
        "bomb-by-ratio": Row(Honest(build_image([squeezed])), "layer_too_large", "times its size"),
        "no-bomb": Row(Honest(build_image([layer_of({"n": noise, "z": bytes(4 * MIB)})]))),
        "127-layers": Row(Honest(build_image(layers))),
        "128-layers": Row(
            Honest(build_image([*layers, layer_of({"l": b""})])), "image_limit", "squash it"
        ),
        "an-empty-layer": Row(Honest(build_image([layer_of({}), layer_of({"f": b"1"})]))),
        "no-layer": Row(Honest(build_image([])), "image_limit", "0 layers"),
        "duplicate-layers": Row(Honest(build_image([same, noisy("between"), same]))),
    }


@dataclass
class QuickConverter:
    """The converter's parts as its service has them, with less patience and smaller limits."""

    bus: EmbeddedBus
    pulls: Pulls
    store: PackStore
    told: Recorder

    async def pull(self, name: str, reference: str) -> ImageConverted | PullFailed:
        event = PullRequested(
            correlation_id=name,
            key=name,
            attempt=1,
            reference=reference,
            platform=this_platform(),
            options=PackOptions(),
            max_dead_share=0.15,
        )
        await self.pulls.on_requested(event)
        await eventually(lambda: self._outcome(name) is not None, within=10)
        found = self._outcome(name)
        assert found is not None
        return found

    def _outcome(self, name: str) -> ImageConverted | PullFailed | None:
        for event in self.told.events:
            if isinstance(event, ImageConverted | PullFailed) and event.key == name:
                return event
        return None


@asynccontextmanager
async def quick_converter(directory: Path) -> AsyncIterator[QuickConverter]:
    settings = Settings.model_validate({"data_dir": directory})
    async with AsyncExitStack() as stack:
        bus = EmbeddedBus(work_queues(["local"]))
        await bus.open(Deadline.after(5))
        stack.push_async_callback(bus.close)
        told = Recorder()
        consumer = await bus.consume(GATEWAY_EVENTS, told, slots=1)
        stack.push_async_callback(consumer.stop, Deadline.after(5))
        store = PackStore(settings.store)
        store.keep_to_itself()
        packers = await stack.enter_async_context(Packers(1))
        http = await stack.enter_async_context(open_session())
        registries = Registries(http, {}, QUICK, {})
        conversion = Conversion(store, LayerPacker(store, packers, LIMITS, Origins(store)), 3)
        imports = Imports(Users((), 1000), registries, store.root / "scratch", LIMITS)
        pulls = Pulls(
            settings, bus, registries, conversion, tickets=TicketOffice(settings), imports=imports
        )
        yield QuickConverter(bus, pulls, store, told)


async def test_each_lie_ends_as_it_should_and_leaves_nothing_behind(tmp_path: Path) -> None:
    table = rows()
    slots = asyncio.Semaphore(6)
    async with (
        lying_registry({name: row.lie for name, row in table.items()}) as host,
        quick_converter(tmp_path) as converter,
    ):

        async def outcome(name: str) -> ImageConverted | PullFailed:
            async with slots:
                return await converter.pull(name, f"{host}/{name}:{TAG}")

        outcomes = await asyncio.gather(*map(outcome, table))
        wrong = [
            f"{name}: {told}"
            for (name, row), found in zip(table.items(), outcomes, strict=True)
            if (told := _difference(row, found))
        ]
        assert not wrong, "\n".join(wrong)
        ready = [found for found in outcomes if isinstance(found, ImageConverted)]
        root = converter.store.root
        assert [path for path in root.rglob("*") if path.name.endswith(".partial")] == []
        needed = {layer.pack for found in ready for layer in found.recipe.layers}
        assert {path.stem for path in root.rglob("*.pack")} == needed, "and none of lies"
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        assert size < 2 * sum(found.recipe.size for found in ready)


def _difference(row: Row, found: ImageConverted | PullFailed) -> str | None:
    if isinstance(found, ImageConverted):
        return None if row.code is None else f"READY, and not {row.code}"
    if (found.code, found.retryable) != (row.code, row.retryable):
        return f"{found.code} (retryable: {found.retryable}): {found.message}"
    return None if row.says in found.message else f"says: {found.message}"
