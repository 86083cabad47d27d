"""Writes an OCI layout directory: layers as reproducible gzip tars, config, manifest, index."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from deploy.demo.host_files import Entry, FileSet, Folder, HostFile, SymbolicLink, Text

REF_NAME: Final = "org.opencontainers.image.ref.name"

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A layer in the layout: its descriptor, and the digest of its tar."""

    descriptor: dict[str, Any]
    diff_id: str


class LayoutWriter:
    """Fills one layout directory with one image."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._blobs = directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)

    def layer(self, files: FileSet) -> WrittenLayer:
        """Write a layer, in one pass and in little memory."""
        unfinished = self._blobs / "unfinished"
        with unfinished.open("wb") as file:
            compressed = _Hashed(file)
            with gzip.GzipFile("", "wb", 3, compressed, mtime=0) as packed:
                plain = _Hashed(packed)
                with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                    for path, entry in sorted(files.entries.items()):
                        _add(tar, path, entry)
        descriptor = {
            "mediaType": _LAYER,
            "digest": compressed.digest,
            "size": unfinished.stat().st_size,
        }
        unfinished.replace(self._blobs / compressed.digest.removeprefix("sha256:"))
        return WrittenLayer(descriptor, plain.digest)

    def image(self, layers: list[WrittenLayer], run: dict[str, Any], name: str) -> None:
        """Write the config, the manifest and, last, the index that names them."""
        machine = platform.machine()
        config = {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._document(config, _CONFIG),
            "layers": [layer.descriptor for layer in layers],
        }
        entry = {**self._document(manifest, _MANIFEST), "annotations": {REF_NAME: name}}
        version = json.dumps({"imageLayoutVersion": "1.0.0"})
        (self._directory / "oci-layout").write_text(version)
        index = {"schemaVersion": 2, "manifests": [entry]}
        unfinished = self._directory / "index.json.unfinished"
        unfinished.write_text(json.dumps(index))
        unfinished.replace(self._directory / "index.json")

    def _document(self, value: dict[str, Any], media_type: str) -> dict[str, Any]:
        data = json.dumps(value, sort_keys=True).encode()
        name = hashlib.sha256(data).hexdigest()
        (self._blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}


class _Hashed(io.RawIOBase):
    """A writable file that knows the digest of what went through it."""

    def __init__(self, below: IO[bytes] | gzip.GzipFile) -> None:
        self._below = below
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._below.write(data)


def _add(tar: tarfile.TarFile, path: PurePosixPath, entry: Entry) -> None:
    # Owner, group and time stay zero: the same files give the same bytes.
    info = tarfile.TarInfo(str(path).lstrip("/"))
    match entry:
        case Folder(mode):
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        case SymbolicLink(target):
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target
            tar.addfile(info)
        case Text(content, executable):
            info.mode, info.size = (0o755 if executable else 0o644), len(content)
            tar.addfile(info, io.BytesIO(content))
        case HostFile(source, executable):
            with source.open("rb") as file:
                info.mode = 0o755 if executable else 0o644
                info.size = source.stat().st_size
                tar.addfile(info, file)
