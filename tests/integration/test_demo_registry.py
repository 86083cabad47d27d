"""The demonstration's image is pulled from the demonstration's registry, unpacked, and run."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from deploy.demo.registry import demo_registry
from deploy.demo.sample_image import write_sample_image
from services.converter.registry import errors
from services.converter.registry.client import RegistryClient, ResolvedImage
from services.converter.registry.endpoint import registry_endpoint
from services.converter.registry.platforms import parse_platform
from services.converter.registry.transport import open_session
from shared.deadline import Deadline
from shared.reference import ImageReference, parse_reference
from shared.settings.types import this_platform

HERE = parse_platform(this_platform())


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("layout")
    assert write_sample_image(directory) == "demo/hello:1.0"
    return directory


@pytest.fixture
async def server(layout: Path) -> AsyncIterator[TestServer]:
    server = TestServer(demo_registry(layout), host="127.0.0.1")
    async with server:
        yield server


@pytest.fixture
async def client(server: TestServer) -> AsyncIterator[RegistryClient]:
    async with open_session() as http:
        yield RegistryClient(http, registry_endpoint(f"127.0.0.1:{server.port}", insecure=True))


@pytest.fixture
def reference(server: TestServer) -> ImageReference:
    return parse_reference(f"127.0.0.1:{server.port}/demo/hello:1.0")


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(60)


async def pulled(
    client: RegistryClient, image: ResolvedImage, deadline: Deadline
) -> AsyncIterator[bytes]:
    """The layers' tars, each checked against its digests."""
    for layer in image.layers:
        blob = bytearray()
        async with aclosing(client.stream_blob(image.reference, layer, deadline)) as chunks:
            async for chunk in chunks:
                blob += chunk
        assert f"sha256:{hashlib.sha256(blob).hexdigest()}" == layer.digest
        tar = gzip.decompress(blob)
        assert f"sha256:{hashlib.sha256(tar).hexdigest()}" == layer.diff_id
        yield tar


def unpack(tar: bytes, root: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        for member in members:
            path = Path(member.name)
            if path.name.startswith(".wh."):
                (root / path.with_name(path.name.removeprefix(".wh."))).unlink()
            else:
                members.extract(member, root, filter="tar")


def run_inside(root: Path, *command: str) -> str:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare: install Debian's package util-linux")
    enter = ["unshare", "--user", "--map-root-user", "chroot", str(root), *command]
    path = "/usr/local/bin:/opt/python/bin:/usr/bin:/bin"
    answer = subprocess.run(
        enter, capture_output=True, text=True, check=False, env={"PATH": f"{path}:/usr/sbin:/sbin"}
    )
    if answer.returncode != 0 and "unshare failed" in answer.stderr:
        pytest.skip(f"this machine allows no user namespaces: {answer.stderr.strip()}")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


async def test_the_sample_image_runs_from_its_layers_alone(
    client: RegistryClient, reference: ImageReference, deadline: Deadline, tmp_path: Path
) -> None:
    image = await client.resolve(reference, HERE, deadline)
    assert 3 <= len(image.layers) <= 4
    assert sum(layer.size for layer in image.layers) > 10 << 20
    assert image.config.cmd == ("hello",)
    doomed = tmp_path / "etc/removed-by-the-last-layer"
    seen = []
    async for tar in pulled(client, image, deadline):
        unpack(tar, tmp_path)
        seen.append(doomed.exists())
    assert seen == [True] * (len(seen) - 1) + [False]
    assert "Hello from inside the image" in run_inside(tmp_path, "hello")
    imports = "import ssl, sqlite3, ctypes, json, asyncio, sys, zlib, hashlib; print(sys.prefix)"
    assert run_inside(tmp_path, "python3", "-c", imports) == "/opt/python\n"
    script = "id -u; cat /etc/os-release | grep -c demo; ls / | head -1; uname -s"
    assert run_inside(tmp_path, "sh", "-c", script).split() == ["0", "3", "bin", "Linux"]


def test_the_same_machine_makes_the_same_image(layout: Path, tmp_path: Path) -> None:
    write_sample_image(tmp_path)
    again, before = (
        {p.relative_to(d): p.stat().st_size for p in d.rglob("*") if p.is_file()}
        for d in (tmp_path, layout)
    )
    assert again == before
    assert (tmp_path / "index.json").read_bytes() == (layout / "index.json").read_bytes()


def test_no_path_of_a_home_directory_is_in_the_image(layout: Path) -> None:
    home = os.path.expanduser("~").strip("/")  # noqa: PTH111 - as tar names would have it
    for blob in (layout / "blobs" / "sha256").iterdir():
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            with tarfile.open(blob) as members:
                assert not [m.name for m in members if m.name.startswith(f"{home}/")]


async def test_head_and_pinned_pulls_agree(
    client: RegistryClient, reference: ImageReference, deadline: Deadline
) -> None:
    digest = await client.head_digest(reference, deadline)
    image = await client.resolve(reference.pinned(digest), HERE, deadline)
    assert image.reference_digest == digest


async def test_what_is_not_there_is_not_found(
    client: RegistryClient, reference: ImageReference, deadline: Deadline
) -> None:
    for missing in (
        replace(reference, tag="2.0"),
        replace(reference, repository="demo/other"),
        reference.pinned("sha256:" + "0" * 64),
    ):
        with pytest.raises(errors.ImageNotFoundError, match="check the name and the tag"):
            await client.resolve(missing, HERE, deadline)


async def test_it_speaks_as_registries_do(server: TestServer, deadline: Deadline) -> None:
    async with open_session() as http:
        base = f"http://127.0.0.1:{server.port}/v2/"
        async with http.get(base) as answer:
            assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        async with http.get(f"{base}demo/hello/tags/list") as answer:
            assert await answer.json() == {"name": "demo/hello", "tags": ["1.0"]}
        async with http.head(f"{base}demo/hello/manifests/1.0") as answer:
            digest = answer.headers["Docker-Content-Digest"]
            size = int(answer.headers["Content-Length"])
        blob = f"{base}demo/hello/blobs/{digest}"
        async with http.get(blob, headers={"Range": "bytes=2-5"}) as answer:
            assert (answer.status, len(await answer.read())) == (206, 4)
            assert answer.headers["Content-Range"] == f"bytes 2-5/{size}"
        for wrong in ("sha256:..%2F..%2Findex.json", "..%2Foci-layout", "sha256:" + "f" * 64):
            async with http.get(f"{base}demo/hello/blobs/{wrong}") as answer:
                assert answer.status == 404
                assert (await answer.json())["errors"][0]["code"].endswith("_UNKNOWN")
        async with http.put(f"{base}demo/hello/manifests/1.0", data=b"{}") as answer:
            assert answer.status == 405
            assert (await answer.json())["errors"][0]["code"] == "UNSUPPORTED"
