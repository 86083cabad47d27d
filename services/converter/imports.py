"""Files that users import, as sources of images: opened with their rights, and told apart.

Whoever could read a layer once has what is in it: of each pack is remembered who has brought it.
"""

import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from services.converter.packing.limits import Limits
from services.converter.registries import Registries
from services.converter.registry.platforms import Platform
from services.converter.sources.interface import Proof, Source, SourceImage, SourceLayer
from services.converter.sources.layout import INDEX
from services.converter.sources.open import opened
from services.converter.sources.opening import reading
from services.converter.sources.origin import FileOrigin
from services.converter.user_files.as_user import User, Users
from services.converter.user_files.interface import UserFiles
from shared.deadline import Deadline
from shared.events import ImportedFile
from shared.threads import in_thread

SETTLED_SECONDS: Final = 2.0
"""Clocks of file systems are coarse: what was written a moment ago may be written again unseen."""


@dataclass(frozen=True, slots=True)
class Imports:
    """Opens what is to be imported."""

    users: Users
    registries: Registries
    scratch: Path
    limits: Limits

    @asynccontextmanager
    async def source(
        self, file: ImportedFile, deadline: Deadline
    ) -> AsyncIterator["ImportedSource"]:
        origin = FileOrigin(Path(file.path), file.format, file.image)
        async with self.users.files(_user(file), deadline) as files:
            noting = NotingFiles(files, file)
            async with opened(
                origin,
                self.registries,
                self.scratch,
                self.limits,
                deadline,
                user_files=noting,
            ) as source:
                yield ImportedSource(source, noting)

    async def identity(self, file: ImportedFile, deadline: Deadline) -> str | None:
        """What tells the file that is there now from any other."""
        async with self.users.files(_user(file), deadline) as files:
            look = partial(_looked_at, files, file)
            doing = f"looking at {file.path}"
            return await in_thread(look, threading.Event(), deadline, doing)


class NotingFiles:
    """As UserFiles; remembers what the imported file was when it was opened to be read."""

    def __init__(self, files: UserFiles, file: ImportedFile) -> None:
        self._files = files
        self._file = file
        self.identity: str | None = None

    @property
    def scope(self) -> str:
        return self._files.scope

    def open_file(self, path: str | Path, *, within: int | None = None) -> int:
        fd = self._files.open_file(path, within=within)
        if within is None or str(path) == INDEX:
            self.identity = _identity(fd, self._file)
        return fd

    def open_directory(self, path: str | Path, *, within: int | None = None) -> int:
        return self._files.open_directory(path, within=within)

    def run(self, job: str, order: bytes, fds: Sequence[int]) -> bytes:
        return self._files.run(job, order, fds)


class ImportedSource:
    """An image in a file, for the user who could read it."""

    authenticated: Final = True
    """Nobody else could, as far as we know."""

    def __init__(self, source: Source, files: NotingFiles) -> None:
        self._source = source
        self._files = files

    @property
    def file(self) -> str | None:
        return self._files.identity

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage:
        image = await self._source.resolve(platform, deadline)
        proof = Proof(registry=self._files.scope, public=False, confirm=_has_brought_it)
        layers = tuple(_to_prove(layer, proof) for layer in image.layers)
        return replace(image, layers=layers)


def _to_prove(layer: SourceLayer, proof: Proof) -> SourceLayer:
    """A digest is a promise; who has none to show has shown the layer itself."""
    return layer if layer.stamp is not None else replace(layer, proof=proof)


async def _has_brought_it(_: Deadline) -> bool:
    """The pack's origins name this user: that cannot be undone."""
    return True


def _user(file: ImportedFile) -> User:
    return User(file.uid, file.gids)


def _looked_at(files: UserFiles, file: ImportedFile) -> str | None:
    noting = NotingFiles(files, file)
    with reading(file.path):
        try:
            root = files.open_directory(file.path)
        except NotADirectoryError:
            os.close(noting.open_file(file.path))
        else:
            try:
                with suppress(FileNotFoundError):  # no layout any more: whatever it is, it changed
                    os.close(noting.open_file(INDEX, within=root))
            finally:
                os.close(root)
    return noting.identity


def _identity(fd: int, file: ImportedFile) -> str | None:
    now = os.fstat(fd)
    if time.time() - max(now.st_ctime, now.st_mtime) < SETTLED_SECONDS:
        return None
    found = (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    return f"{':'.join(map(str, found))}:{file.format}:{file.image}"
