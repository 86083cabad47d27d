"""A read-only registry over an OCI layout directory: enough of /v2/ to pull, nothing to push.

The layout's index names each image by `org.opencontainers.image.ref.name`, here in full
("demo/hello:1.0"), so that one directory can hold several repositories.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from deploy.demo.oci_layout import REF_NAME

_API = {"Docker-Distribution-Api-Version": "registry/2.0"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = r"{name:[a-z0-9]+(?:[._/-]+[a-z0-9]+)*}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest of the layout's index."""

    digest: str
    media_type: str


class Layout:
    """What an OCI layout holds. Read once: the demonstration's image does not change."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs" / "sha256"
        self._tags: dict[str, dict[str, Manifest]] = {}
        index = json.loads((directory / "index.json").read_text())
        for entry in index["manifests"]:
            repository, _, tag = entry.get("annotations", {}).get(REF_NAME, "").partition(":")
            if repository and tag:
                found = Manifest(entry["digest"], entry["mediaType"])
                self._tags.setdefault(repository, {})[tag] = found

    def repositories(self) -> list[str]:
        return sorted(self._tags)

    def tags(self, repository: str) -> dict[str, Manifest]:
        """The repository's tags; empty if there is no such repository."""
        return self._tags.get(repository, {})

    def manifest(self, repository: str, wanted: str) -> Manifest | None:
        """The manifest with this tag or digest."""
        tags = self.tags(repository)
        by_digest = {manifest.digest: manifest for manifest in tags.values()}
        return tags.get(wanted) or by_digest.get(wanted)

    def blob(self, digest: str) -> Path | None:
        """The blob's file. Only a digest becomes a path."""
        if not _DIGEST.fullmatch(digest):
            return None
        path = self._blobs / digest.removeprefix("sha256:")
        return path if path.is_file() else None


def demo_registry(directory: Path) -> web.Application:
    """The registry of one layout directory, as an application to run."""
    handlers = _Handlers(Layout(directory))
    app = web.Application(middlewares=[_in_registry_format])
    app.router.add_get("/v2/", handlers.base)
    app.router.add_get("/v2/_catalog", handlers.catalog)
    app.router.add_get(f"/v2/{_NAME}/tags/list", handlers.tags)
    app.router.add_get(f"/v2/{_NAME}/manifests/{{wanted}}", handlers.manifest)
    app.router.add_get(f"/v2/{_NAME}/blobs/{{digest}}", handlers.blob)
    return app


class _Handlers:
    """One method per route; HEAD comes with GET."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def base(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async def catalog(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"repositories": self._layout.repositories()})

    async def tags(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        tags = self._layout.tags(name)
        if not tags:
            return _error(404, "NAME_UNKNOWN", f"there is no repository {name}")
        return web.json_response({"name": name, "tags": sorted(tags)})

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        name, wanted = request.match_info["name"], request.match_info["wanted"]
        manifest = self._layout.manifest(name, wanted)
        path = self._layout.blob(manifest.digest) if manifest else None
        if manifest is None or path is None:
            return _error(404, "MANIFEST_UNKNOWN", f"there is no {wanted} in {name}")
        return _file(path, manifest.digest, manifest.media_type)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        name, digest = request.match_info["name"], request.match_info["digest"]
        path = self._layout.blob(digest) if self._layout.tags(name) else None
        if path is None:
            return _error(404, "BLOB_UNKNOWN", f"there is no blob {digest} in {name}")
        return _file(path, digest, "application/octet-stream")


@web.middleware
async def _in_registry_format(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPMethodNotAllowed:
        response = _error(405, "UNSUPPORTED", "this registry can only be read")
    except web.HTTPNotFound:
        response = _error(404, "NAME_UNKNOWN", "there is nothing at this address")
    response.headers.update(_API)
    return response


def _file(path: Path, digest: str, media_type: str) -> web.FileResponse:
    headers = {
        "Content-Type": media_type,
        "Docker-Content-Digest": digest,
        "Cache-Control": "max-age=31536000",
    }
    return web.FileResponse(path, chunk_size=256 * 1024, headers=headers)


def _error(status: int, code: str, message: str) -> web.Response:
    body = {"errors": [{"code": code, "message": message, "detail": None}]}
    return web.json_response(body, status=status)
