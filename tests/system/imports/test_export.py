"""What leaves a site comes back to it: pulled, exported as files, imported again."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.as_user import Somebody
from tests.support.images import File, Link, Pusher, build_image, layer_of
from tests.support.imports import brought
from tests.support.imports import dray as typed
from tests.support.noise import noise
from tests.support.private_site import ALICE, CAROL
from tests.support.registry import DebianRegistry
from tests.support.site import Site
from tests.support.trees import image_rows

pytestmark = pytest.mark.root


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


async def dray(site: Site, uid: int, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(typed, site, uid, where, *words)


def listed(image: Path) -> str:
    if shutil.which("unsquashfs") is None:
        pytest.skip("unsquashfs is missing: install squashfs-tools")
    done = subprocess.run(["unsquashfs", "-llnumeric", image], capture_output=True, check=True)
    return done.stdout.decode(errors="backslashreplace")


async def test_what_was_pulled_leaves_and_comes_back(
    site: Site, alice: Somebody, registry: DebianRegistry, home: Path
) -> None:
    shutil.chown(home, ALICE)
    lower = layer_of({"data": File(noise(300_000)), "old": b"1", "bin/tool": File(b"#!", 0o755)})
    upper = layer_of({".wh.old": b"", "bin/name": Link("tool"), "twin": Link("data", hard=True)})
    run = {"Env": ["PATH=/bin", "A=b c"], "Cmd": ["tool", "x"], "WorkingDir": "/bin"}
    Pusher(registry.url).push(build_image([lower, upper], run=run), "team/app", "1")
    reference = f"{registry.host}/team/app:1"
    pull = await site.pull(reference)
    view = await site.reached(pull["id"], "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
    placed = site.images / f"{view['image']['id']}.squashfs"

    # The file is everybody's: it is read where it is.
    done = await dray(site, ALICE, home, "export", reference)
    assert done.returncode == 0, done.stderr
    assert listed(home / "app-1.squashfs") == listed(placed)
    assert (home / "app-1.squashfs").read_bytes() == placed.read_bytes()

    done = await dray(site, ALICE, home, "export", "--format", "oci", reference)
    assert done.returncode == 0, done.stderr
    back = await brought(alice, "app:1", home / "app-1.oci.tar")
    assert back["state"] == "READY", back["failure"]
    for said in ("env", "cmd", "workdir", "entrypoint"):
        assert back["image"][said] == view["image"][said]
    assert image_rows(site.images / f"{back['image']['id']}.squashfs") == image_rows(placed)

    # The import is hers alone, and its file the distributor's: the gateway gives it to her.
    done = await dray(site, ALICE, home, "export", "custom:app:1", "-o", "mine.squashfs")
    assert done.returncode == 0, done.stderr
    mine = home / "mine.squashfs"
    assert mine.stat().st_mode & 0o777 == 0o600
    assert mine.read_bytes() == (site.images / f"{back['image']['id']}.squashfs").read_bytes()
    refused = await dray(site, CAROL, home, "export", "custom:app:1", "-o", "-")
    assert refused.returncode == 1
    assert "not READY" in refused.stderr
