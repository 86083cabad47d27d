"""A tar of a root file system, compressed or not: one layer, read as it lies there."""

import hashlib
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

from services.converter.registry.platforms import Platform
from services.converter.sources.bare import bare_image
from services.converter.sources.files import CHUNK
from services.converter.sources.interface import SourceImage, SourceLayer
from services.converter.sources.opening import reading
from services.converter.sources.own_thread import own_thread
from services.converter.trees.errors import TreeChangedError
from services.converter.trees.jobs import file_identity
from shared.deadline import Deadline


@dataclass(frozen=True, slots=True)
class PlainTar:
    """`fd` is its file, `scope` says with whose rights that was opened."""

    fd: int
    called: str
    scope: str

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage:
        with own_thread() as thread:
            look = partial(os.fstat, self.fd)
            state = await thread.run(look, deadline, f"looking at {self.called}")
        identity = f"{self.scope} tar {file_identity(state)}"
        layer = SourceLayer(
            diff_id=None,
            blob=None,
            size=state.st_size,
            open=partial(self._stream, state),
            stamp=hashlib.sha256(identity.encode()).hexdigest(),
            literal=True,
        )
        return bare_image(self.called, (layer,))

    async def _stream(
        self, state: os.stat_result, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        doing = f"reading {self.called}"
        done = 0
        with own_thread() as thread:
            while piece := await thread.run(partial(self._read, done), deadline, doing):
                done += len(piece)
                yield piece
            now = await thread.run(partial(os.fstat, self.fd), deadline, doing)
        if file_identity(now) != file_identity(state):
            raise TreeChangedError(
                f"{self.called} was changed while it was read: import it again when it is complete"
            )

    def _read(self, offset: int) -> bytes:
        with reading(self.called):
            return os.pread(self.fd, CHUNK, offset)
