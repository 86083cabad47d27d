"""A directory tree, a squashfs or a disk image: listed into a spool, then read part by part.

Both happen in processes with the importer's rights; here is only what starts them and takes the
bytes over. Parts that were listed just as they are before are not read again.
"""

import asyncio
import hashlib
import os
import secrets
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Final

from services.converter.packing.limits import Limits
from services.converter.registry.platforms import Platform
from services.converter.sources.bare import LIMITS, bare_image
from services.converter.sources.interface import SourceImage, SourceLayer
from services.converter.trees.errors import TreeTooLargeError, shown
from services.converter.trees.jobs import Listing, ListOrder, ReadOrder
from services.converter.trees.parts import LEAST_WEIGHT, PARTS, Part
from services.converter.user_files.interface import UserFiles
from shared.deadline import Deadline
from shared.models import Sha256
from shared.pipes import chunks, large_pipe
from shared.threads import in_thread

# Progress is told of so many layers.
_MOST_PARTS: Final = 256
_MOST_TEXT: Final = 1 << 20
# What was changed so shortly before it was listed may have been changed again without a trace:
# clocks of file systems tick slowly.
_SETTLED_NS: Final = 2_000_000_000
# Of a tar, about: a header, and half a block of padding.
_ENTRY_BYTES: Final = 768


@dataclass(frozen=True, slots=True)
class Spooled:
    """`content` is the directory or the image, `spool` an empty file: descriptors."""

    what: str
    """"tree", "squashfs" or a disk's format: which jobs know how to read it."""
    content: int
    spool: int
    called: str
    files: UserFiles
    limits: Limits
    threads: int
    least_weight: int = LEAST_WEIGHT

    async def resolve(self, platform: Platform, deadline: Deadline) -> SourceImage:
        listing = await self._listed(deadline)
        if listing.parts_length > _MOST_TEXT:
            raise TreeTooLargeError(f"{self.called} was cut into too many parts")
        text = await asyncio.to_thread(
            os.pread, self.spool, listing.parts_length, listing.parts_start
        )
        parts = PARTS.validate_json(text)
        if not 0 < len(parts) <= _MOST_PARTS:
            raise TreeTooLargeError(f"{self.called} was cut into {len(parts)} parts")
        layers = [self._layer(part, listing.began) for part in parts]
        return bare_image(self.called, layers, _notes(listing))

    async def _listed(self, deadline: Deadline) -> Listing:
        order = ListOrder(
            scope=self.files.scope,
            threads=self.threads,
            limits=self.limits,
            max_rows=LIMITS.max_nodes,
            least_weight=self.least_weight,
        )
        await asyncio.to_thread(os.ftruncate, self.spool, 0)
        await asyncio.to_thread(os.lseek, self.spool, 0, os.SEEK_SET)
        reading, writing = large_pipe()
        try:
            answer = await self._job("list", order.model_dump_json(), writing, deadline)
        finally:
            os.close(reading)  # which ends a job that still goes on
        return Listing.model_validate_json(answer)

    def _layer(self, part: Part, began: int) -> SourceLayer:
        return SourceLayer(
            diff_id=None,
            blob=None,
            size=part.size + part.rows * _ENTRY_BYTES,
            open=partial(self._stream, part),
            stamp=_lasting(part, began),
            literal=True,
        )

    async def _stream(self, part: Part, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        order = ReadOrder(start=part.start, length=part.length, threads=self.threads)
        reading, writing = large_pipe()
        job = asyncio.create_task(self._job("read", order.model_dump_json(), writing, deadline))
        try:
            async with deadline.bound(f"reading {self.called}"):
                async for chunk in chunks(reading):
                    yield chunk
            # The end of the pipe says nothing: only that the job came to its end does.
            await job
        finally:
            os.close(reading)
            job.cancel()
            await asyncio.wait([job])

    async def _job(self, verb: str, order: str, writing: int, deadline: Deadline) -> bytes:
        """Its pipe is closed when it has ended, however it ends."""

        def work() -> bytes:
            try:
                descriptors = (self.content, self.spool, writing)
                return self.files.run(f"{verb}_{self.what}", order.encode(), descriptors)
            finally:
                os.close(writing)

        return await in_thread(work, threading.Event(), deadline, f"reading {self.called}")


def _lasting(part: Part, began: int) -> Sha256:
    """The part's stamp; one that nobody finds again if it may be true of two contents."""
    if part.latest < began - _SETTLED_NS:
        return part.stamp
    return hashlib.sha256(f"{part.stamp} {secrets.token_hex(16)}".encode()).hexdigest()


def _notes(listing: Listing) -> list[str]:
    notes = list(listing.notes)
    if listing.sockets:
        notes.append(f"sockets are left out: {listing.sockets:,}")
    for what, paths in (
        ("other file systems are mounted there, and these directories stay empty", listing.mounts),
        ("snapshots are left out", listing.snapshots),
    ):
        if paths:
            notes.append(f"{what}: {shown(len(paths), [os.fsencode(path) for path in paths])}")
    return notes
