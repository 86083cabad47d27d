"""The registry that everyone pulls from: Debian's docker-registry, and what we ask of it."""

import hashlib
import http.client
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from bench.convert.content import ContentError
from bench.convert.layers import BuiltLayer
from tests.support.registry import BINARY, DebianRegistry, self_signed

MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_OTHERS: Final = "application/vnd.oci.image.manifest.v1+json"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_TIMEOUT: Final = 600.0
_CHUNK: Final = 1 << 20


class Blob(Protocol):
    """What a push needs to know of a layer."""

    @property
    def digest(self) -> str: ...
    @property
    def diff_id(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def path(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class RemoteLayer:
    """A layer as the manifest names it."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry by plain HTTP; `pid` is its process, if it is ours."""

    host: str
    tls_host: str | None = None
    pid: int | None = None

    def has(self, repository: str, tag: str) -> bool:
        return self._ask("HEAD", f"/v2/{repository}/manifests/{tag}")[0] == 200

    def layers(self, repository: str, tag: str) -> list[RemoteLayer]:
        """The layers, lowest first."""
        status, _, body = self._ask("GET", f"/v2/{repository}/manifests/{tag}")
        if status != 200:
            raise ContentError(f"{self.host} has no {repository}:{tag} (status {status})")
        return [RemoteLayer(layer["digest"], layer["size"]) for layer in json.loads(body)["layers"]]

    def read(self, repository: str, digest: str) -> Iterator[bytes]:
        """A blob, piece by piece."""
        connection = self._connect()
        try:
            connection.request("GET", f"/v2/{repository}/blobs/{digest}")
            answer = connection.getresponse()
            if answer.status != 200:
                raise ContentError(f"{self.host} has no blob {digest} (status {answer.status})")
            while piece := answer.read(_CHUNK):
                yield piece
        finally:
            connection.close()

    def push(self, repository: str, tag: str, layers: Sequence[Blob]) -> None:
        """Upload what is missing, then name it."""
        config = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created_by": "bench"} for _ in layers],
        }
        for layer in layers:
            with layer.path.open("rb") as file:
                self._upload(repository, layer.digest, file, layer.size)
        body = json.dumps(config).encode()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self._upload(repository, digest, body, len(body))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": digest, "size": len(body)},
            "layers": [
                {"mediaType": _LAYER, "digest": layer.digest, "size": layer.size}
                for layer in layers
            ],
        }
        where = f"/v2/{repository}/manifests/{tag}"
        headers = {"Content-Type": MANIFEST}
        status, _, answer = self._ask("PUT", where, json.dumps(manifest).encode(), headers)
        if status != 201:
            raise ContentError(f"the registry took no manifest: {status} {answer[:200]!r}")

    def copy_from(self, other: "Registry", repository: str, tag: str, spool: Path) -> None:
        """Have another registry's image, byte for byte."""
        where = f"/v2/{repository}/manifests/{tag}"
        status, headers, manifest = other._ask("GET", where)  # noqa: SLF001 - of the same class
        if status != 200:
            raise ContentError(f"{other.host} has no {repository}:{tag} (status {status})")
        content = json.loads(manifest)
        for part in (content["config"], *content["layers"]):
            if self._ask("HEAD", f"/v2/{repository}/blobs/{part['digest']}")[0] == 200:
                continue
            with spool.open("w+b") as file:
                file.writelines(other.read(repository, part["digest"]))
                file.seek(0)
                self._upload(repository, part["digest"], file, part["size"])
            spool.unlink()
        self._ask("PUT", where, manifest, {"Content-Type": headers["content-type"]})

    def _upload(self, repository: str, digest: str, body: Any, size: int) -> None:
        if self._ask("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200:
            return
        _, headers, _ = self._ask("POST", f"/v2/{repository}/blobs/uploads/", b"")
        location = headers.get("location", "").removeprefix(f"http://{self.host}")
        where = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        kind = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        status, _, answer = self._ask("PUT", where, body, kind)
        if status != 201:
            raise ContentError(f"the registry took no blob: {status} {answer[:200]!r}")

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=_TIMEOUT)

    def _ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = self._connect()
        try:
            accept = {"Accept": f"{MANIFEST}, {_OTHERS}"}
            connection.request(method, path, body, {**accept, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()


@contextmanager
def running_registry(directory: Path, *, tls: bool) -> Iterator[Registry]:
    """Ours, over a directory that keeps its images; with TLS too for clients that insist on it."""
    if not BINARY.exists():
        raise ContentError(
            "there is no registry to pull from: install Debian's package docker-registry, or name "
            "one that holds the images with --registry HOST:PORT"
        )
    plain = DebianRegistry(directory)
    secure = DebianRegistry(directory, tls=self_signed(directory / "tls")) if tls else None
    try:
        plain.start()
        if secure:
            secure.start()
        yield Registry(plain.host, secure.host if secure else None, plain.pid)
    finally:
        plain.stop()
        if secure:
            secure.stop()


def push_missing(
    registry: Registry, repository: str, images: Mapping[str, Sequence[BuiltLayer]]
) -> None:
    """Have the registry hold these tags."""
    for tag, layers in images.items():
        wanted = [layer.digest for layer in layers]
        there = registry.layers(repository, tag) if registry.has(repository, tag) else []
        if [layer.digest for layer in there] != wanted:
            registry.push(repository, tag, layers)
