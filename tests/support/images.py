"""Builds small images in memory and pushes them to a registry, with the standard library only.

image = build_image([layer_of({"etc/motd": b"hi", "bin/sh": Link("busybox")})])
Pusher(registry.url).push(image, "group/tool", "1.0")
"""

import base64
import gzip
import hashlib
import io
import json
import ssl
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import zstandard

from services.converter.registry.platforms import Platform, parse_platform
from shared.settings.types import this_platform

Kind = Literal["oci", "docker"]
Compression = Literal["none", "gzip", "zstd"]

_TYPES: dict[Kind, dict[str, str]] = {
    "oci": {
        "index": "application/vnd.oci.image.index.v1+json",
        "manifest": "application/vnd.oci.image.manifest.v1+json",
        "config": "application/vnd.oci.image.config.v1+json",
        "none": "application/vnd.oci.image.layer.v1.tar",
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    },
    "docker": {
        "index": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifest": "application/vnd.docker.distribution.manifest.v2+json",
        "config": "application/vnd.docker.container.image.v1+json",
        "none": "application/vnd.docker.image.rootfs.diff.tar",
        "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
    },
}


@dataclass(frozen=True, slots=True)
class File:
    """A regular file with other than default metadata."""

    data: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Directory:
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; `hard` makes it a hard link to a path in the same layer."""

    target: str
    hard: bool = False


Entry = bytes | File | Directory | Link


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer's blob and what a manifest and a config say of it."""

    blob: bytes = field(repr=False)
    digest: str
    diff_id: str
    compression: Compression


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A manifest (or an index, then with `children`) and everything below it."""

    manifest: bytes
    media_type: str
    digest: str
    config: bytes = b""
    config_digest: str = ""
    layers: tuple[BuiltLayer, ...] = ()
    children: tuple["BuiltImage", ...] = ()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer_of(entries: Mapping[str, Entry], compression: Compression = "gzip") -> BuiltLayer:
    """A layer from paths and what lies there, in the given order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, entry in entries.items():
            info, data = _member(path, entry)
            tar.addfile(info, io.BytesIO(data))
    return layer_from_tar(buffer.getvalue(), compression)


def layer_from_tar(tar: bytes, compression: Compression = "gzip") -> BuiltLayer:
    """A layer from a tar that was made elsewhere."""
    match compression:
        case "gzip":
            blob = gzip.compress(tar, compresslevel=1, mtime=0)
        case "zstd":
            blob = zstandard.ZstdCompressor(level=1).compress(tar)
        case "none":
            blob = tar
    return BuiltLayer(blob, sha256(blob), sha256(tar), compression)


def build_image(
    layers: Sequence[BuiltLayer],
    *,
    kind: Kind = "oci",
    run: Mapping[str, Any] | None = None,
    platform: Platform | None = None,
) -> BuiltImage:
    """An image for `platform` (this machine's, unless told); `run` is the config's inner part."""
    types = _TYPES[kind]
    platform = platform or parse_platform(this_platform())
    variant = {"variant": platform.variant} if platform.variant else {}
    config = _json(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            **variant,
            "config": dict(run or {}),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": types["manifest"],
            "config": _descriptor(types["config"], config),
            "layers": [_descriptor(types[layer.compression], layer.blob) for layer in layers],
        }
    )
    return BuiltImage(
        manifest, types["manifest"], sha256(manifest), config, sha256(config), tuple(layers)
    )


def build_index(images: Mapping[Platform, BuiltImage], *, kind: Kind = "oci") -> BuiltImage:
    """A multi-platform image."""
    offers = []
    for platform, image in images.items():
        named = {"os": platform.os, "architecture": platform.architecture}
        if platform.variant:
            named["variant"] = platform.variant
        offers.append({**_descriptor(image.media_type, image.manifest), "platform": named})
    media_type = _TYPES[kind]["index"]
    index = _json({"schemaVersion": 2, "mediaType": media_type, "manifests": offers})
    return BuiltImage(index, media_type, sha256(index), children=tuple(images.values()))


class Pusher:
    """Pushes to one registry, by plain HTTP unless `tls` trusts it."""

    def __init__(
        self,
        url: str,
        login: tuple[str, str] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._tls = tls
        self._headers: dict[str, str] = {}
        if login:
            pair = base64.b64encode(":".join(login).encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"

    def push(self, image: BuiltImage, repository: str, tag: str) -> str:
        """Push everything that the registry lacks; returns the digest that the tag now has."""
        for child in image.children:
            self.push(child, repository, child.digest)
        for layer in image.layers:
            self.push_blob(repository, layer.blob, layer.digest)
        if image.config:
            self.push_blob(repository, image.config, image.config_digest)
        headers = {"Content-Type": image.media_type}
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, headers)
        return image.digest

    def push_blob(self, repository: str, blob: bytes, digest: str) -> None:
        try:
            self._ask("HEAD", f"/v2/{repository}/blobs/{digest}")
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code != 404:
                raise
        else:
            return
        location = self._ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        separator = "&" if "?" in location else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._ask("PUT", f"{location}{separator}digest={digest}", blob, headers)

    def _ask(
        self,
        method: str,
        where: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        url = where if "://" in where else self._url + where
        request = urllib.request.Request(  # noqa: S310 - a test's own registry
            url, data=body, method=method, headers={**self._headers, **(headers or {})}
        )
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:  # noqa: S310
            location: str = answer.headers.get("Location", "")
            return location


def _member(path: str, entry: Entry) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(path)
    data = b""
    match entry:
        case bytes():
            info.mode, data = 0o644, entry
        case File():
            info.mode, info.uid, info.gid, data = entry.mode, entry.uid, entry.gid, entry.data
        case Directory():
            info.type, info.mode = tarfile.DIRTYPE, entry.mode
        case Link():
            info.type = tarfile.LNKTYPE if entry.hard else tarfile.SYMTYPE
            info.mode, info.linkname = 0o777, entry.target
    info.size = len(data)
    return info, data


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
