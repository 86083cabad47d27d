"""A tar of a root file system, compressed or not: one layer, read as it lies there."""

import asyncio
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
        async with deadline.bound(f"looking at {self.called}"):
            state = await asyncio.to_thread(os.fstat, self.fd)
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
        done = 0
        while True:
            async with deadline.bound(f"reading {self.called}"):
                with reading(self.called):
                    piece = await asyncio.to_thread(os.pread, self.fd, CHUNK, done)
            if not piece:
                break
            done += len(piece)
            yield piece
        now = await asyncio.to_thread(os.fstat, self.fd)
        if file_identity(now) != file_identity(state):
            raise TreeChangedError(
                f"{self.called} was changed while it was read: import it again when it is complete"
            )
