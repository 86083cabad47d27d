"""Writes an image as an OCI layout of one layer: the tar of its files, a config, a manifest.

The image's own bytes decide all of it: the same image gives the same digests.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from cli.oci.compress import Compression, compressor
from cli.oci.places import Blob, Place, add_blob
from cli.oci.tree import NoLayerError, Outlook, look_through, rows
from shared.image.reading.inspection import read_image
from shared.image.reading.reader import SquashImage
from shared.image.recipe import ImageConfig
from shared.image.tar.contents import SquashContents

REF_NAME: Final = "org.opencontainers.image.ref.name"
FULL_NAME: Final = "io.containerd.image.name"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_SUFFIXES: Final = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}

Report = Callable[[int, int], None]
"""Bytes of the layer's tar that are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Named:
    """How the image is called in the layout, and what it runs on."""

    reference: str
    platform: str
    annotations: dict[str, str] = field(default_factory=dict)


def write_layout(
    place: Place, path: Path, named: Named, compression: Compression, report: Report
) -> Outlook:
    """From the squashfs at `path`, which Dray made. Blocks."""
    description = read_image(path).description
    if description is None:
        raise NoLayerError(
            f"{path.name} does not say what it runs: it was made by an earlier version; pull it "
            "again with --force"
        )
    with SquashImage(path) as image:
        outlook = look_through(image)
        layer = _Layer(image, compression, outlook.size, report)
        written = place.blob(layer.write)
    source = f"{named.reference}, manifest {description.source.manifest}"
    config = _config(description.config, named.platform, layer.diff_id, source)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(_CONFIG, add_blob(place, _json(config))),
        "layers": [_descriptor(_LAYER + _SUFFIXES[compression], written)],
    }
    entry = _descriptor(_MANIFEST, add_blob(place, _json(manifest)))
    entry["platform"] = _platform(named.platform)
    if named.annotations:
        entry["annotations"] = named.annotations
    place.add("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    place.add("index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
    return outlook


class _Layer:
    """The files as one compressed tar; `diff_id` is known when it is written."""

    def __init__(
        self, image: SquashImage, compression: Compression, size: int, report: Report
    ) -> None:
        self._image = image
        self._compress = compressor(compression)
        self._size = size
        self._report = report
        self._done = 0
        self._plain = hashlib.sha256()

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._plain.hexdigest()}"

    def write(self, file: BinaryIO) -> Blob:
        digest, size = hashlib.sha256(), 0
        for piece in self._compress(self._tar()):
            digest.update(piece)
            file.write(piece)
            size += len(piece)
        return Blob(f"sha256:{digest.hexdigest()}", size)

    def _tar(self) -> Iterator[bytes]:
        for piece in SquashContents(self._image).tar(rows(self._image)):
            self._plain.update(piece)
            self._done += len(piece)
            self._report(min(self._done, self._size), self._size)
            yield piece


def _config(run: ImageConfig, platform: str, diff_id: str, source: str) -> dict[str, Any]:
    said = {
        "User": run.user,
        "Env": list(run.env),
        "Entrypoint": list(run.entrypoint),
        "Cmd": list(run.cmd),
        "WorkingDir": run.workdir,
        "Labels": run.labels,
    }
    return {
        **_platform(platform),
        "config": {key: value for key, value in said.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "dray export", "comment": f"all layers of {source}"}],
    }


def _platform(text: str) -> dict[str, str]:
    parts = text.split("/")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))


def _descriptor(media_type: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
