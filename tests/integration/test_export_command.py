"""`dray export` as a user types it: over connections that break, to files and into pipes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.exports import ExportSite, breaking, built, export_site
from tests.support.packing import Built
from tests.support.trees import image_rows

REFERENCE = "debian:1"
NAME = "debian-1.squashfs"
OWNER = 4201


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory.mktemp("source"))


@pytest.fixture
async def site(tmp_path: Path, source: Built) -> AsyncIterator[ExportSite]:
    async with export_site(tmp_path, source) as site:
        yield site


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


async def dray(home: Path, url: str, *words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """In a directory of the user's, who is nobody in particular unless `env` has a token."""
    clean = {name: value for name, value in os.environ.items() if name[:5] != "DRAY_"}

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", "export", *words],
            env=clean | {"DRAY_URL": url, "DRAY_MUNGE_SOCKET": "none"} | env,
            cwd=home,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return await asyncio.to_thread(run)


def files(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir())


async def test_the_file_comes_over_connections_that_break(site: ExportSite, home: Path) -> None:
    await site.ready("debian")
    async with breaking(site.two.a, site.size // 4) as (url, given):
        # One gateway has not the file, one breaks off, and nobody is at the last.
        urls = f"{site.two.b.url},{url},http://127.0.0.1:9"
        done = await dray(home, urls, REFERENCE)
    assert done.returncode == 0, done.stderr
    assert len(given) >= 4
    assert sum(given) < 2 * site.size, "what had come was not fetched again"
    assert (home / NAME).read_bytes() == site.source.path.read_bytes()
    assert files(home) == [NAME]
    assert done.stdout.decode().startswith(f"{NAME}  docker.io/library/debian:1, id aaaaaaaaaaaa, ")


async def test_a_later_run_goes_on_and_finds_what_is_damaged(site: ExportSite, home: Path) -> None:
    await site.ready("debian")
    part = home / f".{NAME}.{site.source.content_digest[:16]}.part"
    content = site.source.path.read_bytes()
    for begun in (content[:2_000_000], bytes(2_000_000), content + b"more"):
        part.write_bytes(begun)
        async with breaking(site.two.a, 1 << 40) as (url, given):
            done = await dray(home, url, "--force", REFERENCE)
        assert done.returncode == 0, done.stderr
        assert (home / NAME).read_bytes() == content
        assert files(home) == [NAME]
        if begun == content[:2_000_000]:
            assert sum(given) < len(content) - 1_900_000


async def test_what_is_there_is_left_alone(site: ExportSite, home: Path) -> None:
    await site.ready("debian")
    (home / NAME).write_text("mine")
    refused = await dray(home, site.two.a.url, REFERENCE)
    assert refused.returncode == 2
    assert b"--force" in refused.stderr
    assert (home / NAME).read_text() == "mine"
    missing = await dray(home, site.two.a.url, "nothing:1")
    assert missing.returncode == 1
    assert b"dray pull" in missing.stderr
    blind = await dray(home, site.two.a.url, "-o", "no/where", REFERENCE)
    assert blind.returncode == 2
    assert files(home) == [NAME]


async def test_it_goes_into_a_pipe_checked_on_its_way(site: ExportSite, home: Path) -> None:
    await site.ready("debian")
    async with breaking(site.two.a, site.size // 3) as (url, _):
        done = await dray(home, url, "-o", "-", REFERENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == site.source.path.read_bytes()
    placed = site.images / f"{'a' * 64}.squashfs"
    with placed.open("r+b") as file:
        file.seek(site.size // 2)
        file.write(b"damage")
    damaged = await dray(home, site.two.a.url, "-o", "-", REFERENCE)
    assert damaged.returncode == 1
    assert b"image_corrupt" in damaged.stderr
    refused = await dray(home, site.two.a.url, REFERENCE)
    assert refused.returncode == 1
    assert b"image_corrupt" in refused.stderr
    assert files(home) == []


async def test_a_file_that_can_be_read_is_read_where_it_is(site: ExportSite, home: Path) -> None:
    await site.ready("secret", owner=OWNER)
    token = site.two.token(OWNER)
    # This gateway cannot give the file, but says where it would be.
    done = await dray(home, site.two.a.url, "--json", "secret:1", DRAY_TOKEN=token)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    made = Path(said["path"])
    assert made.read_bytes() == site.source.path.read_bytes()
    assert made.stat().st_mode & 0o777 == 0o600, "it is private here, too"
    assert said["content_digest"] == site.source.content_digest
    nobody = await dray(home, site.two.a.url, "-o", "other", "secret:1")
    assert nobody.returncode == 1
    assert b"not READY" in nobody.stderr


async def test_an_oci_archive_comes_by_file_and_by_pipe(site: ExportSite, home: Path) -> None:
    await site.ready("debian")
    async with breaking(site.two.a, site.size // 2) as (url, _):
        done = await dray(home, url, "--format", "oci", REFERENCE)
    assert done.returncode == 0, done.stderr
    assert files(home) == ["debian-1.oci.tar"]
    piped = await dray(home, site.two.a.url, "--format", "oci", "-o", "-", REFERENCE)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == (home / "debian-1.oci.tar").read_bytes()
    unpacked = await dray(home, site.two.a.url, "--format", "oci", "-o", "layout", REFERENCE)
    assert unpacked.returncode == 0, unpacked.stderr
    index = json.loads((home / "layout/index.json").read_text())
    assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "1"
    again = await dray(home, site.two.a.url, "--format", "oci", "-o", "layout", REFERENCE)
    assert again.returncode == 2
    assert files(home) == ["debian-1.oci.tar", "layout"]
    assert len(image_rows(site.source.path)) == 4
