"""Resolving against a registry that misbehaves in every way that we know of."""

import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from services.converter.registry import errors
from services.converter.registry.client import RegistryClient
from services.converter.registry.documents import DOCKER_MANIFEST, OCI_INDEX
from services.converter.registry.endpoint import registry_endpoint
from services.converter.registry.platforms import Platform, parse_platform
from shared.deadline import Deadline
from shared.reference import parse_reference
from shared.settings.types import this_platform
from tests.support.images import BuiltImage, build_image, build_index, layer_of, sha256
from tests.support.ports import free_port
from tests.unit.registry.conftest import QUICK, Serve

HERE = parse_platform(this_platform())
IMAGE = build_image([layer_of({"a": b"1"}), layer_of({"b": b"2"})], run={"Env": ["A=b"]})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def served(image: BuiltImage, **headers: str) -> Handler:
    """A correct registry with one image."""
    documents = {"1": image, image.digest: image, **{c.digest: c for c in image.children}}
    blobs = {i.config_digest: i.config for i in documents.values() if i.config}

    async def answer(request: web.Request) -> web.StreamResponse:
        kind, _, name = request.path.removeprefix("/v2/group/tool/").partition("/")
        if kind == "manifests" and name in documents:
            found = documents[name]
            return web.Response(
                body=found.manifest, headers={"Content-Type": found.media_type, **headers}
            )
        if kind == "blobs" and name in blobs:
            return web.Response(body=blobs[name])
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)

    return answer


def constant(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


async def test_resolves_an_image_and_all_its_digests(serve: Serve, deadline: Deadline) -> None:
    registry = await serve(served(IMAGE))
    found = await registry.client().resolve(registry.reference, HERE, deadline)
    assert found.reference_digest == found.manifest_digest == IMAGE.digest
    assert found.source.config == IMAGE.config_digest
    assert [(x.digest, x.diff_id, x.size) for x in found.layers] == [
        (x.digest, x.diff_id, len(x.blob)) for x in IMAGE.layers
    ]
    assert found.config.env == ("A=b",)


async def test_an_index_leads_to_this_platform(serve: Serve, deadline: Deadline) -> None:
    other = build_image([layer_of({"x": b""})], platform=Platform("linux", "s390x"))
    index = build_index({Platform("linux", "s390x"): other, HERE: IMAGE})
    registry = await serve(served(index))
    client = registry.client()
    found = await client.resolve(registry.reference, HERE, deadline)
    assert (found.reference_digest, found.manifest_digest) == (index.digest, IMAGE.digest)
    assert await client.head_digest(registry.reference, deadline) == index.digest
    with pytest.raises(errors.PlatformNotFoundError, match="linux/riscv64, only for linux/") as no:
        await client.resolve(registry.reference, Platform("linux", "riscv64"), deadline)
    assert "s390x" in str(no.value)


async def test_an_image_for_other_processors_is_refused(serve: Serve, deadline: Deadline) -> None:
    registry = await serve(served(build_image([], platform=Platform("linux", "s390x"))))
    with pytest.raises(errors.ImageLimitError, match="0 layers"):
        await registry.client().resolve(registry.reference, HERE, deadline)
    other = build_image([layer_of({})], platform=Platform("linux", "s390x"))
    registry = await serve(served(other))
    with pytest.raises(errors.PlatformNotFoundError, match="is for linux/s390x"):
        await registry.client().resolve(registry.reference, HERE, deadline)


async def test_an_index_within_an_index_is_refused(serve: Serve, deadline: Deadline) -> None:
    inner = build_index({HERE: IMAGE})
    registry = await serve(served(build_index({HERE: inner})))
    with pytest.raises(errors.RegistryProtocolError, match="index within an index"):
        await registry.client().resolve(registry.reference, HERE, deadline)


async def test_a_manifest_must_be_what_its_digest_says(serve: Serve, deadline: Deadline) -> None:
    lying = await serve(served(IMAGE, **{"Docker-Content-Digest": sha256(b"other")}))
    with pytest.raises(errors.ContentMismatchError, match="manifest of"):
        await lying.client().resolve(lying.reference, HERE, deadline)
    headers = {"Content-Type": IMAGE.media_type}
    swapped = await serve(constant(200, IMAGE.manifest + b" ", headers))
    pinned = swapped.reference.pinned(IMAGE.digest)
    with pytest.raises(errors.ContentMismatchError, match="manifest of"):
        await swapped.client().resolve(pinned, HERE, deadline)
    with pytest.raises(errors.ContentMismatchError):
        await swapped.client().head_digest(pinned, deadline)


async def test_a_config_must_be_what_its_digest_says(serve: Serve, deadline: Deadline) -> None:
    good = served(IMAGE)

    async def answer(request: web.Request) -> web.StreamResponse:
        if "/blobs/" in request.path:
            return web.Response(body=IMAGE.config.replace(b"A=b", b"A=c"))
        return await good(request)

    registry = await serve(answer)
    with pytest.raises(errors.ContentMismatchError, match="config of"):
        await registry.client().resolve(registry.reference, HERE, deadline)


async def test_layers_and_diff_ids_must_match(serve: Serve, deadline: Deadline) -> None:
    config = json.loads(IMAGE.config)
    config["rootfs"]["diff_ids"].pop()
    body = json.dumps(config).encode()
    manifest = json.loads(IMAGE.manifest)
    manifest["config"] |= {"digest": sha256(body), "size": len(body)}
    raw = json.dumps(manifest).encode()
    odd = replace(IMAGE, config=body, config_digest=sha256(body), manifest=raw, digest=sha256(raw))
    registry = await serve(served(odd))
    with pytest.raises(errors.RegistryProtocolError, match="2 layers, but its config describes 1"):
        await registry.client().resolve(registry.reference, HERE, deadline)


@pytest.mark.parametrize("stated", [True, False])
async def test_a_huge_manifest_is_not_read(
    serve: Serve, deadline: Deadline, *, stated: bool
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if stated:
            response.content_length = 1 << 40
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" " * 65536)
        return response

    registry = await serve(answer)
    with pytest.raises(errors.ImageLimitError, match="more than 4194304 bytes"):
        await registry.client().resolve(registry.reference, HERE, deadline)


@pytest.mark.parametrize(
    ("status", "body", "error", "advice"),
    [
        (404, b"", errors.ImageNotFoundError, "check the name and the tag"),
        (401, b"", errors.RegistryAccessError, "log in"),
        (403, b"", errors.RegistryAccessError, "misspelt, or private"),
        (400, b"", errors.RegistryProtocolError, "unset insecure"),
        (418, b"", errors.RegistryProtocolError, "answers 418"),
        (500, b"", errors.RegistryBusyError, "error of its own"),
        (501, b"", errors.RegistryProtocolError, "answers 501"),
        (503, b"", errors.RegistryBusyError, "try again later"),
        (200, b"<html>hello</html>", errors.RegistryProtocolError, "not valid"),
        (200, b"", errors.RegistryProtocolError, "not valid"),
        (200, b'{"hello": 1}', errors.UnsupportedImageError, "octet-stream"),
        (206, b"", errors.RegistryProtocolError, "not valid"),
    ],
)
async def test_every_answer_has_its_error_and_advice(
    serve: Serve,
    deadline: Deadline,
    *,
    status: int,
    body: bytes,
    error: type[errors.RegistryError],
    advice: str,
) -> None:
    registry = await serve(constant(status, body))
    with pytest.raises(error, match=advice) as caught:
        await registry.client().resolve(registry.reference, HERE, deadline)
    assert type(caught.value) is error
    assert registry.host.split(":")[0] in str(caught.value)


async def test_a_closed_port_is_told_from_an_unknown_host(
    http: aiohttp.ClientSession, deadline: Deadline
) -> None:
    closed = f"127.0.0.1:{free_port()}"
    client = RegistryClient(http, registry_endpoint(closed, insecure=True), QUICK)
    with pytest.raises(errors.RegistryUnreachableError, match="host and port"):
        await client.resolve(parse_reference(f"{closed}/a"), HERE, deadline)
    nowhere = "registry.invalid:5000"
    client = RegistryClient(http, registry_endpoint(nowhere, insecure=True), QUICK)
    expected = (errors.RegistryUnknownHostError, errors.RegistryUnreachableError)
    with pytest.raises(expected, match=r"registry\.invalid"):
        await client.resolve(parse_reference(f"{nowhere}/a"), HERE, deadline)


async def test_a_silent_server_is_given_up(http: aiohttp.ClientSession, deadline: Deadline) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        patience = replace(QUICK, silence=0.05, attempts=2)
        client = RegistryClient(http, registry_endpoint(host, insecure=True), patience)
        with pytest.raises(errors.RegistryTimeoutError, match="silent"):
            await client.resolve(parse_reference(f"{host}/a"), HERE, deadline)


async def test_tls_to_a_plain_server_names_the_setting(serve: Serve, deadline: Deadline) -> None:
    registry = await serve(constant(200))
    client = RegistryClient(registry.http, registry_endpoint(registry.host), QUICK)
    with pytest.raises(errors.RegistryTlsError, match="set insecure"):
        await client.resolve(registry.reference, HERE, deadline)


async def test_a_dropped_connection_is_tried_again(serve: Serve, deadline: Deadline) -> None:
    good, asked = served(IMAGE), 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            assert request.transport is not None
            request.transport.abort()
        if asked == 2:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"x")
            assert request.transport is not None
            request.transport.close()
            return response
        return await good(request)

    registry = await serve(answer)
    found = await registry.client().resolve(registry.reference, HERE, deadline)
    assert found.manifest_digest == IMAGE.digest
    assert asked == 4


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_busy_registry_is_waited_for(serve: Serve, deadline: Deadline, status: int) -> None:
    good, asked = served(IMAGE), 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked < 3:
            return web.Response(status=status, headers={"Retry-After": "0"})
        return await good(request)

    registry = await serve(answer)
    found = await registry.client().resolve(registry.reference, HERE, deadline)
    assert found.manifest_digest == IMAGE.digest


async def test_a_wait_beyond_the_deadline_is_refused_at_once(serve: Serve) -> None:
    registry = await serve(constant(429, headers={"Retry-After": "3600"}))
    deadline = Deadline.after(30)
    with pytest.raises(errors.RegistryBusyError, match="try again in 3600 s"):
        await registry.client().resolve(registry.reference, HERE, deadline)
    assert deadline.remaining() > 25


async def test_head_digest_trusts_the_header_and_does_without(
    serve: Serve, deadline: Deadline
) -> None:
    methods: list[str] = []
    good = served(IMAGE, **{"Docker-Content-Digest": IMAGE.digest})
    bare = served(IMAGE)

    async def with_header(request: web.Request) -> web.StreamResponse:
        methods.append(request.method)
        return await good(request)

    async def without_head(request: web.Request) -> web.StreamResponse:
        methods.append(request.method)
        return web.Response(status=405) if request.method == "HEAD" else await bare(request)

    for handler, expected in (with_header, ["HEAD"]), (without_head, ["HEAD", "GET"]):
        methods.clear()
        registry = await serve(handler)
        digest = await registry.client().head_digest(registry.reference, deadline)
        assert (digest, methods) == (IMAGE.digest, expected)


async def test_it_asks_for_all_kinds_and_for_nothing_compressed(
    serve: Serve, deadline: Deadline
) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.extend((request.headers["Accept"], request.headers["Accept-Encoding"]))
        return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})

    registry = await serve(answer)
    with pytest.raises(errors.RegistryProtocolError, match="compresses"):
        await registry.client().resolve(registry.reference, HERE, deadline)
    assert DOCKER_MANIFEST in seen[0]
    assert OCI_INDEX in seen[0]
    assert seen[1] == "identity"
