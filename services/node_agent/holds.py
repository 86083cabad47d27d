"""Who needs which image: one mount per image, shared by all that hold it.

Each image has one worker at most, which brings what is mounted in line with whether anybody holds
it. So twenty requests at once make one mount, a request that gives up leaves nothing behind, and
a hold that comes while an unmount is under way gets a fresh mount after it.
"""

import asyncio
import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final

from services.node_agent.mounter import How
from services.node_agent.readers import User
from services.node_agent.staging import Stager
from services.node_agent.threads import DaemonThreads
from shared.api import MountView
from shared.deadline import Deadline
from shared.events import NodeImage
from shared.logging import get_logger
from shared.models import ImageId

log = get_logger(__name__)

_THREADS: Final = 8


@dataclass(eq=False, slots=True)
class _Entry:
    """One image on this node. `how` is set exactly while holders may use the mount."""

    how: How | None = None
    size: int | None = None
    """Of the image's file, once a request has been checked against it."""
    seconds: float = 0.0
    holders: set[Hashable] = field(default_factory=set)
    work: asyncio.Task[None] | None = None


class Holds:
    """All images on this node."""

    def __init__(self, stager: Stager) -> None:
        self._stager = stager
        self._entries: dict[ImageId, _Entry] = {}
        # A dead file system hangs these threads, and not those that the rest of us needs.
        self._threads = DaemonThreads(_THREADS, "mount")

    @property
    def views(self) -> tuple[MountView, ...]:
        return tuple(
            self._view(image_id, entry)
            for image_id, entry in self._entries.items()
            if entry.how is not None
        )

    async def adopt(self, wanted: frozenset[ImageId]) -> frozenset[ImageId]:
        """Take over what an earlier agent mounted, as far as it is wanted. Before all else."""
        found = await self._threads.run(self._stager.adopt, wanted)
        self._entries = {image_id: _Entry(how) for image_id, how in found.items()}
        return frozenset(found)

    def hold_adopted(self, image_id: ImageId, holder: Hashable) -> None:
        self._entries[image_id].holders.add(holder)

    async def acquire(self, image: NodeImage, holder: Hashable, deadline: Deadline) -> MountView:
        """Have the image mounted until `holder` releases it."""
        async with deadline.bound(f"examining image {image.image_id}"):
            await self._examine(image)
        entry = self._entries.setdefault(image.image_id, _Entry())
        entry.size = image.size
        claim = object()  # of this request alone: another one of the same holder may give up
        entry.holders.add(claim)
        try:
            async with deadline.bound(f"mounting image {image.image_id}"):
                # Also if it is mounted: the worker looks whether it still works.
                await asyncio.shield(self._settle(image.image_id, entry))
                while entry.how is None:
                    await asyncio.shield(self._settle(image.image_id, entry))
            entry.holders.add(holder)
            return self._view(image.image_id, entry)
        finally:
            entry.holders.discard(claim)
            if not entry.holders:
                self._settle(image.image_id, entry)

    async def require_readable(self, image_id: ImageId, user: User, deadline: Deadline) -> None:
        """An error where this user may not have the image, as if it were not here."""
        async with deadline.bound(f"looking who may use image {image_id}"):
            await self._threads.run(self._stager.require_readable, image_id, user)

    async def admit(self, image_id: ImageId, user: User, deadline: Deadline) -> None:
        """Let a user to an image that is mounted, where that is not for everybody."""
        async with deadline.bound(f"opening image {image_id}"):
            await self._threads.run(self._stager.admit, image_id, user)

    async def readable(self, image_ids: Iterable[ImageId], user: User) -> frozenset[ImageId]:
        """Those of the images that this user may know of."""

        def look() -> frozenset[ImageId]:
            return frozenset(each for each in image_ids if self._stager.readable(each, user))

        return await self._threads.run(look)

    async def release(
        self, image_ids: Iterable[ImageId], holder: Hashable, deadline: Deadline
    ) -> None:
        """`holder` needs these no more; returns when the last holder's mounts are gone."""
        works = []
        for image_id in image_ids:
            entry = self._entries.get(image_id)
            if entry is not None:
                entry.holders.discard(holder)
                works.append(self._settle(image_id, entry))
        if works:
            async with deadline.bound("unmounting"):
                await asyncio.shield(asyncio.gather(*works, return_exceptions=True))

    async def close(self, deadline: Deadline) -> None:
        """Let running mounts finish. What is held stays mounted: jobs outlive their agent."""
        works = [entry.work for entry in self._entries.values() if entry.work is not None]
        if works:
            await asyncio.wait(works, timeout=deadline.remaining())

    async def _examine(self, image: NodeImage) -> None:
        """Each request by itself: what one user gets wrong is not to fail the others'."""
        entry = self._entries.get(image.image_id)
        if entry is None or entry.size != image.size:
            await self._threads.run(self._stager.examine, image)

    def _view(self, image_id: ImageId, entry: _Entry) -> MountView:
        return MountView(
            image_id=image_id,
            path=str(self._stager.path(image_id)),
            how=entry.how or self._stager.how,
            seconds=round(entry.seconds, 6),
        )

    def _settle(self, image_id: ImageId, entry: _Entry) -> asyncio.Task[None]:
        if entry.work is None or entry.work.done():
            entry.work = asyncio.create_task(self._work(image_id, entry), name=f"mount-{image_id}")
            entry.work.add_done_callback(_note_failure)
        return entry.work

    async def _work(self, image_id: ImageId, entry: _Entry) -> None:
        try:
            if entry.holders and entry.how is not None:
                await self._look_after(image_id, entry)
            while bool(entry.holders) != (entry.how is not None):
                if entry.holders:
                    await self._mount(image_id, entry)
                else:
                    await self._unmount(image_id, entry)
                    log.info("image_unmounted", image=image_id)
        except BaseException:
            # All that waited fail together; whoever comes later starts afresh.
            entry.holders.clear()
            raise
        finally:
            if not entry.holders and self._entries.get(image_id) is entry:
                del self._entries[image_id]

    async def _look_after(self, image_id: ImageId, entry: _Entry) -> None:
        if not await self._threads.run(self._stager.is_alive, image_id):
            log.warning("mount_found_dead", image=image_id)
            await self._unmount(image_id, entry)

    async def _mount(self, image_id: ImageId, entry: _Entry) -> None:
        started = time.monotonic()
        await self._threads.run(self._stager.stage, image_id)
        entry.how = self._stager.how
        entry.seconds = time.monotonic() - started
        log.info("image_mounted", image=image_id, seconds=entry.seconds, how=entry.how)

    async def _unmount(self, image_id: ImageId, entry: _Entry) -> None:
        entry.how = None  # from now on nobody is given this mount
        await self._threads.run(self._stager.unstage, image_id)


def _note_failure(work: asyncio.Task[None]) -> None:
    if not work.cancelled() and (exc := work.exception()) is not None:
        log.warning("mount_not_settled", task=work.get_name(), error=str(exc))
