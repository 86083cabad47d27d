"""Archives and layouts as docker save, skopeo and others write them, made in memory."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.images import BuiltImage, sha256

Content = bytes | str
"""A member's bytes, or the target of a symbolic link."""


def archive_of(members: Mapping[str, Content]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def docker_members(
    images: Mapping[str, BuiltImage], *, tags: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Content]:
    """As `docker save` wrote for years: a directory per layer; an equal layer is a link."""
    members: dict[str, Content] = {}
    entries: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for name, image in images.items():
        config = f"{image.config_digest.removeprefix('sha256:')}.json"
        layers = []
        for at, layer in enumerate(image.layers):
            place = f"{sha256(f'{config}{at}'.encode())[7:]}/layer.tar"
            layers.append(place)
            if place in members:
                continue
            if layer.diff_id in first:
                members[place] = f"../{first[layer.diff_id]}"
            else:
                first[layer.diff_id] = place
                members[place] = layer.blob
        members[config] = image.config
        known_as = [name] if tags is None else list(tags[name])
        entries.append({"Config": config, "RepoTags": known_as, "Layers": layers})
    members["manifest.json"] = json.dumps(entries).encode()
    members["repositories"] = b"{}"
    return members


def layout_members(
    images: Mapping[str, BuiltImage],
    *,
    annotation: str = "org.opencontainers.image.ref.name",
    platforms: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Content]:
    """An OCI layout; a name that begins with `#` is none."""
    members: dict[str, Content] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    entries = []
    for name, image in images.items():
        _add_blobs(members, image)
        entry: dict[str, Any] = {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": len(image.manifest),
        }
        if not name.startswith("#"):
            entry["annotations"] = {annotation: name}
        if platforms and name in platforms:
            entry["platform"] = dict(platforms[name])
        entries.append(entry)
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return members


def write_tree(root: Path, members: Mapping[str, Content]) -> Path:
    """The same members as files of a directory."""
    for name, content in members.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return root


def blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add_blobs(members: dict[str, Content], image: BuiltImage) -> None:
    members[blob_name(image.digest)] = image.manifest
    if image.config:
        members[blob_name(image.config_digest)] = image.config
    for layer in image.layers:
        members[blob_name(layer.digest)] = layer.blob
    for child in image.children:
        _add_blobs(members, child)
