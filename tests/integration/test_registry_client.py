"""The client against Debian's real registry: plain, with passwords, with TLS, and restarted."""

import asyncio
import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.converter.registry import errors
from services.converter.registry.client import RegistryClient
from services.converter.registry.endpoint import Credentials, registry_endpoint
from services.converter.registry.platforms import Platform, parse_platform
from services.converter.registry.transport import Patience
from shared.deadline import Deadline
from shared.reference import parse_reference
from shared.settings.types import this_platform
from tests.support.images import (
    Compression,
    Directory,
    File,
    Kind,
    Link,
    Pusher,
    build_image,
    build_index,
    layer_of,
)
from tests.support.registry import DebianRegistry, self_signed

HERE = parse_platform(this_platform())
ELSEWHERE = Platform("linux", "s390x")
LOGIN = ("alice", "pa:ss word")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.mark.parametrize("kind", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_what_was_pushed_is_what_is_read(
    registry: DebianRegistry,
    http: aiohttp.ClientSession,
    deadline: Deadline,
    *,
    kind: Kind,
    compression: Compression,
) -> None:
    layers = [
        layer_of(
            {
                "bin": Directory(),
                "bin/tool": File(os.urandom(3 << 20), mode=0o755),
                "bin/sh": Link("tool"),
                "bin/again": Link("bin/tool", hard=True),
            },
            compression,
        ),
        layer_of({"etc/motd": b"hello"}, compression),
    ]
    image = build_image(layers, kind=kind, run={"Env": ["A=b"], "WorkingDir": "/w"})
    digest = Pusher(registry.url).push(image, f"group/{kind}-{compression}", "1")
    reference = parse_reference(f"{registry.host}/group/{kind}-{compression}:1")
    client = RegistryClient(http, registry_endpoint(registry.host, insecure=True))
    found = await client.resolve(reference, HERE, deadline)
    assert found.reference_digest == digest == await client.head_digest(reference, deadline)
    assert [layer.compression for layer in found.layers] == [compression] * 2
    assert found.config.workdir == "/w"
    for layer, built in zip(found.layers, layers, strict=True):
        hashed = hashlib.sha256()
        async with aclosing(client.stream_blob(reference, layer, deadline)) as chunks:
            async for chunk in chunks:
                hashed.update(chunk)
        assert f"sha256:{hashed.hexdigest()}" == layer.digest == built.digest
        assert layer.diff_id == built.diff_id


@pytest.mark.parametrize("kind", ["oci", "docker"])
async def test_a_multi_platform_image(
    registry: DebianRegistry, http: aiohttp.ClientSession, deadline: Deadline, kind: Kind
) -> None:
    ours = build_image([layer_of({"a": b"ours"})], kind=kind)
    theirs = build_image([layer_of({"a": b"theirs"})], kind=kind, platform=ELSEWHERE)
    index = build_index({ELSEWHERE: theirs, HERE: ours}, kind=kind)
    digest = Pusher(registry.url).push(index, f"multi/{kind}", "latest")
    reference = parse_reference(f"{registry.host}/multi/{kind}")
    client = RegistryClient(http, registry_endpoint(registry.host, insecure=True))
    found = await client.resolve(reference, HERE, deadline)
    assert (found.reference_digest, found.manifest_digest) == (digest, ours.digest)
    pinned = await client.resolve(reference.pinned(digest), ELSEWHERE, deadline)
    assert pinned.manifest_digest == theirs.digest


async def test_what_is_missing_is_told(
    registry: DebianRegistry, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    client = RegistryClient(http, registry_endpoint(registry.host, insecure=True))
    reference = parse_reference(f"{registry.host}/no/such:tag")
    with pytest.raises(errors.ImageNotFoundError, match="no/such:tag does not exist"):
        await client.resolve(reference, HERE, deadline)
    with pytest.raises(errors.ImageNotFoundError):
        await client.head_digest(reference, deadline)


async def test_a_registry_with_passwords(
    tmp_path: Path, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    with DebianRegistry(tmp_path, login=LOGIN) as registry:
        image = build_image([layer_of({"a": b"b"})])
        Pusher(registry.url, LOGIN).push(image, "private/tool", "1")
        reference = parse_reference(f"{registry.host}/private/tool:1")

        def client(credentials: Credentials | None) -> RegistryClient:
            endpoint = registry_endpoint(registry.host, insecure=True, credentials=credentials)
            return RegistryClient(http, endpoint)

        found = await client(Credentials(*LOGIN)).resolve(reference, HERE, deadline)
        assert found.manifest_digest == image.digest
        with pytest.raises(errors.RegistryAccessError, match=r"refuses access .* log in first"):
            await client(None).resolve(reference, HERE, deadline)
        for wrong in (Credentials("alice", "wrong"), Credentials("bob", LOGIN[1])):
            with pytest.raises(errors.RegistryAccessError, match="does not accept these"):
                await client(wrong).resolve(reference, HERE, deadline)


async def test_tls_needs_the_sites_authority(
    tmp_path: Path, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    certificate, key = self_signed(tmp_path / "tls")
    with DebianRegistry(tmp_path / "registry", tls=(certificate, key)) as registry:
        reference = parse_reference(f"{registry.host}/a:1")
        trusting = RegistryClient(http, registry_endpoint(registry.host, ca_file=certificate))
        with pytest.raises(errors.ImageNotFoundError):
            await trusting.resolve(reference, HERE, deadline)
        distrusting = RegistryClient(http, registry_endpoint(registry.host))
        with pytest.raises(errors.RegistryTlsError, match="set ca_file"):
            await distrusting.resolve(reference, HERE, deadline)
        plain = RegistryClient(http, registry_endpoint(registry.host, insecure=True))
        with pytest.raises(errors.RegistryProtocolError, match="unset insecure"):
            await plain.resolve(reference, HERE, deadline)


async def test_an_encrypted_request_is_never_redirected_into_the_clear(
    tmp_path: Path, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    certificate, key = self_signed(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    reached = False

    async def clear(_request: web.Request) -> web.StreamResponse:
        nonlocal reached
        reached = True
        return web.Response()

    async def redirecting(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": str(below.make_url("/x"))})

    app, other = web.Application(), web.Application()
    app.router.add_get("/{path:.*}", redirecting)
    other.router.add_get("/{path:.*}", clear)
    below = TestServer(other, host="127.0.0.1")
    above = TestServer(app, host="127.0.0.1", scheme="https")
    await below.start_server()
    await above.start_server(ssl=tls)
    try:
        host = f"127.0.0.1:{above.port}"
        client = RegistryClient(http, registry_endpoint(host, ca_file=certificate))
        with pytest.raises(errors.RegistryProtocolError, match="from https to plain http"):
            await client.resolve(parse_reference(f"{host}/a:1"), HERE, deadline)
    finally:
        await http.close()
        await above.close()
        await below.close()
    assert not reached


async def test_a_layer_survives_the_registrys_restart(
    tmp_path: Path, http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    layer = layer_of({"big": os.urandom(24 << 20)}, "none")
    with DebianRegistry(tmp_path) as registry:
        Pusher(registry.url).push(build_image([layer]), "big", "1")
        reference = parse_reference(f"{registry.host}/big:1")
        endpoint = registry_endpoint(registry.host, insecure=True)
        client = RegistryClient(http, endpoint, Patience(first_wait=0.1))
        found = (await client.resolve(reference, HERE, deadline)).layers[0]
        hashed = hashlib.sha256()
        size = 0
        async with aclosing(client.stream_blob(reference, found, deadline)) as chunks:
            async for chunk in chunks:
                if size == 0:
                    registry.kill()
                    restarted = asyncio.create_task(asyncio.to_thread(registry.start))
                hashed.update(chunk)
                size += len(chunk)
        await restarted
        assert size == found.size
        assert f"sha256:{hashed.hexdigest()}" == layer.digest
