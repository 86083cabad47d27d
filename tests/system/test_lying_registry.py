"""What users of a whole site see of registries that lie, and what it costs the site."""

import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.support.conditions import eventually
from tests.support.images import File, build_image, layer_from_tar, layer_of
from tests.support.lying_registry import (
    TAG,
    Endless,
    Honest,
    Lie,
    Moving,
    Resetting,
    Storming,
    lying_registry,
)
from tests.support.site import Site

MIB: Final = 1 << 20
SETTINGS: Final = {
    "converter": {"slots": 9, "max_layer_bytes": 64 * MIB},
    # What may pass by itself would be tried again, for as long as a test should last.
    "pull": {"max_tries": 1},
}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path / "site", SETTINGS) as site:
        await site.up()
        yield site


def damaged() -> Lie:
    image = build_image([layer_of({"f": File(os.urandom(300_000))})])
    blob = image.layers[0].blob
    return Honest(image, {image.layers[0].digest: bytes(len(blob))})


def bomb() -> Lie:
    """400 MiB of zeros in 400 KiB."""
    tar = layer_of({"z": File(bytes(100 * MIB))}, "none").blob
    layer = layer_from_tar(tar[:-1024] + tar[:-1024] + tar)
    return Honest(build_image([layer]))


async def test_each_pull_ends_with_advice_and_nothing_stays(site: Site) -> None:
    image = build_image([layer_of({"f": File(os.urandom(300_000))})])
    other = build_image([layer_of({"g": File(os.urandom(300_000))})])
    foreign = replace(
        image, manifest=image.manifest.replace(b"layer.v1.tar", b"layer.nondistributable.v1.tar")
    )
    table: dict[str, tuple[Lie, str, str]] = {
        "good": (Resetting(image), "", ""),
        "wrong-digest": (damaged(), "layer_mismatch", "try again, and if it stays so"),
        "endless": (Endless(other), "content_mismatch", "more bytes than its manifest promises"),
        "bomb": (bomb(), "layer_too_large", "converter.max_layer_bytes"),
        "tag-moved": (Moving(other), "image_incomplete", "tag may have moved"),
        "foreign": (Honest(foreign), "unsupported_image", "non-distributable layers included"),
        "busy": (
            Storming(other, states=(429,), passes=False, retry_after="86400"),
            "registry_busy",
            "try again in 86400 s",
        ),
    }
    limited = Storming(image, states=(429,), retry_after="2")
    table["limited"] = (limited, "", "")
    async with lying_registry({name: lie for name, (lie, *_) in table.items()}) as host:
        pulls = {name: (await site.pull(f"{host}/{name}:{TAG}"))["id"] for name in table}
        told = await waiting_for(site, pulls["limited"])
        assert re.match(r"waiting \d s for the registry: 127\.0\.0\.1 limits how often", told)
        for name, (_, code, says) in table.items():
            view = await site.reached(pulls[name], "READY", "FAILURE", within=60)
            failure = view["failure"] or {"code": "", "message": ""}
            assert (name, failure["code"]) == (name, code), failure
            assert says in failure["message"]
            assert view["state"] == ("FAILURE" if code else "READY")
    assert site.check_images() == 1
    assert site.leftovers() == []
    assert len(list(site.store.rglob("*.pack"))) == 1
    status = Path(f"/proc/{site.pid('up')}/status").read_text()
    most = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert most is not None
    assert int(most[1]) < 400 * 1024, "neither the bomb nor what has no end is in memory"


async def waiting_for(site: Site, pull: str) -> str:
    """What the pull waits for, as its viewers are told."""
    seen = ""

    async def told() -> bool:
        nonlocal seen
        view = await site.pull_view(pull)
        seen = (view["progress"] or {}).get("waiting") or ""
        return bool(seen)

    await eventually(told, within=20)
    return seen
