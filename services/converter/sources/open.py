"""Finds the source for what a user named."""

import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from services.converter.disks.looks import look_of_disk
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
from services.converter.sources.looks import SQUASHFS, look_of_tar
from services.converter.sources.opening import reading
from services.converter.sources.origin import FileOrigin
from services.converter.sources.plain_tar import PlainTar
from services.converter.sources.registry import RegistrySource
from services.converter.sources.spooled import Spooled
from services.converter.user_files.interface import UserFiles
from services.converter.user_files.own import OwnFiles
from shared.deadline import Deadline
from shared.formats import DISK_FORMATS, Format
from shared.reference import ImageReference
from shared.threads import in_thread

# That wait for a file system's answers, of one part at a time.
READERS: Final = 16
_SKOPEO: Final = b"Directory Transport Version"


@asynccontextmanager
async def opened(
    origin: ImageReference | FileOrigin,
    registries: Registries,
    scratch: Path,
    limits: Limits,
    deadline: Deadline,
    *,
    user_files: UserFiles | None = None,
) -> AsyncIterator[Source]:
    """`scratch` is a directory with room for a compressed archive's content.

    Files are opened by `user_files`; by default with the rights of this process.
    """
    if isinstance(origin, ImageReference):
        yield RegistrySource(await registries.client(origin.registry), origin)
        return
    cancelled = threading.Event()
    opening = _Opening(origin, user_files or OwnFiles(), scratch, limits, cancelled)
    with ExitStack() as stack:
        doing = f"opening {origin.path}"
        source = await in_thread(partial(opening.source, stack), cancelled, deadline, doing)
        yield source


@dataclass(frozen=True, slots=True)
class _ArchiveSource:
    """Several images may be in it, as layers with digests."""

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
            f"{called} is neither an archive of docker save nor an OCI layout: if it is a root "
            f"file system, say tar:{self.origin.path}"
        )


@dataclass(frozen=True, slots=True)
class _Opening:
    """Blocks. What it opens is closed with the stack that it is given."""

    origin: FileOrigin
    user_files: UserFiles
    scratch: Path
    limits: Limits
    cancelled: threading.Event

    def source(self, stack: ExitStack) -> Source:
        path, kind = self.origin.path, self.origin.kind
        if kind in {"oci", "dir"} or (kind is None and self._is_directory()):
            return self._directory(stack)
        with reading(path):
            fd = self.user_files.open_file(path)
        with _closed_on_error(fd), reading(path):
            kind = kind or self._looks_like(fd)
        if kind == "squashfs" or kind in DISK_FORMATS:
            return self._spooled(kind, fd, stack)
        if kind == "tar":
            stack.callback(os.close, fd)
            return PlainTar(fd, str(path), self.user_files.scope)
        file = os.fdopen(fd, "rb", buffering=0)
        called = str(path)
        whole = expanded(file, called, self.scratch, self.limits, self.cancelled)
        archive = TarFiles(whole, called)
        stack.callback(archive.close)
        return _ArchiveSource(archive, self.origin)

    def _directory(self, stack: ExitStack) -> Source:
        path, kind = self.origin.path, self.origin.kind
        if kind != "dir":
            files = DirectoryFiles(path, self.user_files)
            is_layout = files.size(layout.MARK) is not None
            if kind == "oci" or is_layout or files.size(docker_archive.MANIFEST) is not None:
                stack.callback(files.close)
                return _ArchiveSource(files, self.origin)
            files.close()
            raise ArchiveInvalidError(
                f"{path} is a directory, and no OCI layout: if the files in it are to become the "
                f"image, say dir:{path}"
            )
        with reading(path):
            fd = self.user_files.open_directory(path)
        with _closed_on_error(fd):
            self._refuse_skopeos(fd)
        return self._spooled("tree", fd, stack)

    def _refuse_skopeos(self, directory: int) -> None:
        """Other tools mean by "dir:" an image in pieces, which would make a strange tree."""
        try:
            fd = self.user_files.open_file("version", within=directory)
        except (OSError, ArchiveInvalidError):
            return
        with os.fdopen(fd, "rb") as file:
            if file.read(len(_SKOPEO)) == _SKOPEO:
                path = self.origin.path
                raise ArchiveInvalidError(
                    f"{path} is an image as skopeo writes it to dir:, not a tree of files: make an "
                    f"archive of it (skopeo copy dir:{path} oci-archive:image.tar)"
                )

    def _spooled(self, what: str, fd: int, stack: ExitStack) -> Source:
        stack.callback(os.close, fd)
        self.scratch.mkdir(parents=True, exist_ok=True)
        spool, name = tempfile.mkstemp(dir=self.scratch)
        stack.callback(os.close, spool)
        Path(name).unlink()
        return Spooled(
            what=what,
            content=fd,
            spool=spool,
            called=str(self.origin.path),
            files=self.user_files,
            limits=self.limits,
            threads=READERS,
        )

    @staticmethod
    def _looks_like(fd: int) -> Format | None:
        if os.pread(fd, len(SQUASHFS), 0) == SQUASHFS:
            return "squashfs"
        look = look_of_tar(fd)
        return "tar" if look == "root" else look_of_disk(fd) if look is None else None

    def _is_directory(self) -> bool:
        try:
            os.close(self.user_files.open_directory(self.origin.path))
        except OSError:
            return False  # what is wrong with it is told by whoever opens it as a file
        return True


@contextmanager
def _closed_on_error(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise
