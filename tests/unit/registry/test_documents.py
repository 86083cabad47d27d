"""Which manifests, indexes and configs are accepted, and why others are not."""

import json
from typing import Any

import pytest

from services.converter.registry.documents import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    Index,
    Manifest,
    parse_config,
    parse_document,
)
from services.converter.registry.errors import (
    ImageLimitError,
    RegistryError,
    RegistryProtocolError,
    UnsupportedImageError,
)
from services.converter.registry.platforms import Platform, best_of
from tests.support.images import build_image, build_index, layer_of, sha256

IMAGE = build_image([layer_of({"a": b"b"})])
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(b""), "size": 1}


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(IMAGE.manifest), **changes}).encode()


def test_the_kind_is_the_documents_own_word_or_else_the_headers() -> None:
    assert isinstance(parse_document(IMAGE.manifest, "text/plain", "x"), Manifest)
    bare = changed(mediaType=None)
    assert isinstance(parse_document(bare, f"{OCI_MANIFEST}; charset=utf-8", "x"), Manifest)
    assert isinstance(parse_document(bare, DOCKER_MANIFEST, "x"), Manifest)
    index = build_index({Platform("linux", "amd64"): IMAGE})
    assert isinstance(parse_document(index.manifest, "", "x"), Index)


@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        (b"<html>", RegistryProtocolError, "not valid"),
        (b"[" * 100_000, RegistryProtocolError, "not valid"),
        (b"[]", RegistryProtocolError, "not valid"),
        (b"\xff\xfe", RegistryProtocolError, "not valid"),
        (b'{"schemaVersion": 1, "name": "x"}', UnsupportedImageError, "schema 1"),
        (changed(schemaVersion=1), UnsupportedImageError, "schema 1"),
        (
            changed(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"),
            UnsupportedImageError,
            "schema 1",
        ),
        (changed(mediaType="application/x-what"), UnsupportedImageError, "x-what"),
        (changed(manifests=[]), RegistryProtocolError, "at once"),
        (changed(config=None), RegistryProtocolError, "config"),
        (
            changed(config={**LAYER, "mediaType": "application/vnd.cncf.helm.config.v1+json"}),
            UnsupportedImageError,
            "not a container image",
        ),
        (
            changed(
                config={"mediaType": f"{OCI_MANIFEST}".replace("manifest", "config")}
                | {"digest": sha256(b""), "size": 9 << 20}
            ),
            ImageLimitError,
            "config of",
        ),
        (changed(layers=[]), ImageLimitError, "0 layers"),
        (changed(layers=[LAYER] * 128), ImageLimitError, "128 layers"),
        (changed(layers=[LAYER] * 5000), RegistryProtocolError, "at most 1024"),
        (changed(layers=[{**LAYER, "size": -1}]), RegistryProtocolError, "size"),
        (changed(layers=[{**LAYER, "size": 1 << 60}]), RegistryProtocolError, "size"),
        (changed(layers=[{**LAYER, "digest": "sha256:../x"}]), RegistryProtocolError, "digest"),
        (changed(layers=[{**LAYER, "digest": "sha512:ab"}]), RegistryProtocolError, "digest"),
        (
            changed(
                layers=[
                    {
                        **LAYER,
                        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                    }
                ]
            ),
            UnsupportedImageError,
            "foreign",
        ),
        (
            changed(
                layers=[
                    {
                        **LAYER,
                        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
                    }
                ]
            ),
            UnsupportedImageError,
            "foreign",
        ),
        (
            changed(layers=[{**LAYER, "mediaType": "application/x-tar+encrypted"}]),
            UnsupportedImageError,
            "encrypted",
        ),
    ],
)
def test_refuses_with_a_reason(body: bytes, error: type[RegistryError], why: str) -> None:
    with pytest.raises(error, match=why) as caught:
        parse_document(body, OCI_MANIFEST, "h.io/a:1")
    assert "h.io/a:1" in str(caught.value)
    assert len(str(caught.value)) < 600


def config(run: object, **more: object) -> bytes:
    return json.dumps({"config": run, "rootfs": {"diff_ids": [sha256(b"x")]}, **more}).encode()


def test_a_config_with_nulls_is_an_empty_one() -> None:
    for run in (None, {}, {"Env": None, "Cmd": None, "Labels": None, "User": None}):
        parsed = parse_config(config(run), "x")
        assert parsed.run.model_dump() == {
            "env": (),
            "entrypoint": (),
            "cmd": (),
            "workdir": "",
            "user": "",
            "labels": {},
        }
        assert parsed.platform is None


def test_a_config_is_read_in_full() -> None:
    run = {
        "Env": ["A=b", "=x", "novalue", "C=d=e\n"],
        "Entrypoint": ["/e"],
        "Cmd": ["c"],
        "WorkingDir": "/w",
        "User": "1:2",
        "Labels": {"k": "v"},
    }
    parsed = parse_config(config(run, os="linux", architecture="arm64", variant="v8"), "x")
    assert parsed.run.env == ("A=b", "C=d=e\n")
    assert (parsed.run.entrypoint, parsed.run.cmd) == (("/e",), ("c",))
    assert (parsed.run.workdir, parsed.run.user, parsed.run.labels) == ("/w", "1:2", {"k": "v"})
    assert parsed.platform == Platform("linux", "arm64", "v8")
    assert parsed.diff_ids == (sha256(b"x"),)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (config({"Env": ["A=\x00"]}), RegistryProtocolError),
        (config({"WorkingDir": "/\x00"}), RegistryProtocolError),
        (config({"Env": "A=b"}), RegistryProtocolError),
        (config({"Labels": {"a": "x" * 600_000}}), ImageLimitError),
        (b"{}", RegistryProtocolError),
        (b"not json", RegistryProtocolError),
    ],
)
def test_refuses_configs_that_could_do_harm(body: bytes, error: type[RegistryError]) -> None:
    with pytest.raises(error):
        parse_config(body, "x")


def offers(*names: str) -> list[Platform]:
    return [Platform(*name.split("/")) for name in names]


@pytest.mark.parametrize(
    ("system", "offered", "best"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["windows/amd64", "linux/arm64", "unknown/unknown"], None),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v4", "linux/amd64/v2"], 2),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64/v9", "linux/arm64"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm", ["linux/arm/v7", "linux/arm/odd"], 0),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", [], None),
    ],
)
def test_takes_the_best_variant_that_runs(
    system: str, offered: list[str], best: int | None
) -> None:
    assert best_of(offers(*offered), Platform(*system.split("/"))) == best
