"""Finds the source for what a user named."""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.converter.packing.limits import Limits
from services.converter.registries import Registries
from services.converter.registry.platforms import Platform
from services.converter.sources import docker_archive, layout
from services.converter.sources.archive import TarFiles
from services.converter.sources.directory import DirectoryFiles
from services.converter.sources.errors import ArchiveInvalidError
from services.converter.sources.expand import expanded
from services.converter.sources.files import Files
from services.converter.sources.interface import Source, SourceImage
from services.converter.sources.opening import open_regular, reading
from services.converter.sources.origin import FileOrigin
from services.converter.sources.registry import RegistrySource
from shared.deadline import Deadline
from shared.reference import ImageReference
from shared.threads import in_thread


@asynccontextmanager
async def opened(
    origin: ImageReference | FileOrigin,
    registries: Registries,
    scratch: Path,
    limits: Limits,
    deadline: Deadline,
) -> AsyncIterator[Source]:
    """`scratch` is a directory with room for a compressed archive's content."""
    if isinstance(origin, ImageReference):
        yield RegistrySource(await registries.client(origin.registry), origin)
        return
    cancelled = threading.Event()
    work = partial(_open, origin, scratch, limits, cancelled)
    files = await in_thread(work, cancelled, deadline, f"opening {origin.path}")
    try:
        yield _FileSource(files, origin)
    finally:
        files.close()


@dataclass(frozen=True, slots=True)
class _FileSource:
    files: Files
    origin: FileOrigin

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage:
        work = partial(self._resolve, platform)
        # Some bounded documents: there is nothing in it that would last.
        return await in_thread(
            work, threading.Event(), deadline, f"reading what is in {self.files.called}"
        )

    def _resolve(self, platform: Platform) -> SourceImage:
        kind = self.origin.kind
        # Docker writes both; its own manifest has the images' whole names.
        docker = self.files.size(docker_archive.MANIFEST) is not None
        if kind == "docker-archive" or (kind is None and docker):
            if not docker:
                raise self._unknown()
            return docker_archive.resolve(self.files, self.origin.name, platform)
        if kind is None and self.files.size(layout.MARK) is None:
            raise self._unknown()
        return layout.resolve(self.files, self.origin.name, platform)

    def _unknown(self) -> ArchiveInvalidError:
        called = self.files.called
        if self.files.size("repositories") is not None:
            return ArchiveInvalidError(
                f"{called} was saved by Docker before 1.10, without digests: "
                "load it into a current one and save it again"
            )
        return ArchiveInvalidError(
            f"{called} is neither an archive of docker save nor an OCI layout: "
            "a tree of files cannot be converted"
        )


def _open(
    origin: FileOrigin, scratch: Path, limits: Limits, cancelled: threading.Event
) -> TarFiles | DirectoryFiles:
    path = origin.path
    if origin.kind == "oci" or (origin.kind is None and path.is_dir()):
        return DirectoryFiles(path)
    with reading(path):
        file = os.fdopen(open_regular(path), "rb", buffering=0)
    called = str(path)
    return TarFiles(expanded(file, called, scratch, limits, cancelled), called)
