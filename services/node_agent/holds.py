"""Who needs which image: one mount per image, shared by all that hold it.

Each image has one worker at most, which brings what is mounted in line with whether anybody holds
it. So twenty requests at once make one mount, a request that gives up leaves nothing behind, and
a hold that comes while an unmount is under way gets a fresh mount after it.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.node_agent.cache import measuring
from services.node_agent.cache.cache import Cache, Offer
from services.node_agent.cache.shelf import Copy
from services.node_agent.mounter import How
from services.node_agent.readers import User
from services.node_agent.staging import Stager
from services.node_agent.threads import DaemonThreads
from shared.api import MountView
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import NodeImage
from shared.image.recipe import ImageConfig
from shared.logging import get_logger
from shared.models import ImageId
from shared.tracing import span

log = get_logger(__name__)

_THREADS: Final = 8


@dataclass(eq=False, slots=True)
class _Entry:
    """One image on this node. `how` is set exactly while holders may use the mount."""

    how: How | None = None
    image: NodeImage | None = None
    """As the last request had it that was checked against the image's file."""
    copy: Copy | None = None
    """What is mounted, if it is in the cache; None: the file in the shared directory."""
    fell_back: bool = False
    """A copy was wanted, and could not be had in time."""
    asked_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    holders: set[Hashable] = field(default_factory=set)
    work: asyncio.Task[None] | None = None


class Holds:
    """All images on this node."""

    def __init__(self, stager: Stager, cache: Cache | None = None) -> None:
        self._stager = stager
        self._cache = cache
        self._entries: dict[ImageId, _Entry] = {}
        # A dead file system hangs these threads, and not those that the rest of us needs.
        self._threads = DaemonThreads(_THREADS, "mount")

    @property
    def views(self) -> tuple[MountView, ...]:
        return tuple(
            self.view(image_id)
            for image_id, entry in self._entries.items()
            if entry.how is not None
        )

    async def adopt(self, wanted: frozenset[ImageId]) -> frozenset[ImageId]:
        """Take over what an earlier agent mounted, as far as it is wanted. Before all else."""
        found = await self._threads.run(self._stager.adopt, wanted)
        self._entries = {
            image_id: _Entry(standing.how, copy=self._copy_at(image_id, standing.backing))
            for image_id, standing in found.items()
        }
        return frozenset(found)

    def hold_adopted(self, image_id: ImageId, holder: Hashable) -> None:
        self._entries[image_id].holders.add(holder)

    async def acquire(self, image: NodeImage, holder: Hashable, deadline: Deadline) -> MountView:
        """Have the image mounted until `holder` releases it."""
        async with deadline.bound(f"examining image {image.image_id}"):
            await self._examine(image)
        entry = self._entries.setdefault(image.image_id, _Entry())
        entry.image = image
        claim = object()  # of this request alone: another one of the same holder may give up
        entry.holders.add(claim)
        try:
            if self._cache is not None and entry.how is None:
                with span("copy to the node", attributes={"dray.bytes": image.size}):
                    offer = await self._cache.offer(image, deadline)
                entry.fell_back = offer is Offer.FALLBACK
            with span("mount"):
                await self._mounted(image.image_id, entry, deadline)
            entry.holders.add(holder)
            return self.view(image.image_id)
        finally:
            entry.holders.discard(claim)
            if not entry.holders:
                self._settle(image.image_id, entry)

    async def _mounted(self, image_id: ImageId, entry: _Entry, deadline: Deadline) -> None:
        async with deadline.bound(f"mounting image {image_id}"):
            # Also if it is mounted: the worker looks whether it still works.
            await asyncio.shield(self._settle(image_id, entry))
            while entry.how is None:
                await asyncio.shield(self._settle(image_id, entry))

    def fell_back(self, image_id: ImageId) -> bool:
        """Mounted from the shared directory, though there should be a copy."""
        entry = self._entries.get(image_id)
        return entry is not None and entry.fell_back and entry.copy is None

    async def require_readable(self, image_id: ImageId, user: User, deadline: Deadline) -> None:
        """An error where this user may not have the image, as if it were not here."""
        async with deadline.bound(f"looking who may use image {image_id}"):
            await self._threads.run(self._stager.require_readable, image_id, user)

    async def config(self, image_id: ImageId, deadline: Deadline) -> ImageConfig:
        async with deadline.bound(f"reading what image {image_id} says of itself"):
            return await self._threads.run(self._stager.config, image_id)

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
        if entry is None or entry.image != image:
            await self._threads.run(self._stager.examine, image)

    def view(self, image_id: ImageId) -> MountView:
        """Of an image that is held."""
        entry = self._entries[image_id]
        return MountView(
            image_id=image_id,
            path=str(self._stager.path(image_id)),
            how=entry.how or self._stager.how,
            seconds=round(entry.seconds, 6),
            from_cache=entry.copy is not None,
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
        elif entry.copy is None and entry.how != "unpack":
            # It was mounted in place, and the copy has come since: for whoever enters from now on.
            entry.copy = await self._using_copy(entry, self._stager.cover)

    async def _mount(self, image_id: ImageId, entry: _Entry) -> None:
        entry.copy = await self._using_copy(entry, self._stager.stage)
        if entry.copy is None:
            await self._threads.run(self._stager.stage, image_id)
        entry.how = self._stager.how
        entry.seconds = time.monotonic() - entry.asked_at
        if self._cache is not None:
            was_here = entry.copy is not None and entry.copy.added_at < entry.asked_at
            (measuring.HITS if was_here else measuring.MISSES).inc()
        origin = "cache" if entry.copy else "shared"
        measuring.STAGING.labels(entry.how, origin).observe(entry.seconds)
        log.info(
            "image_mounted", image=image_id, seconds=entry.seconds, how=entry.how, origin=origin
        )

    async def _unmount(self, image_id: ImageId, entry: _Entry) -> None:
        entry.how = None  # from now on nobody is given this mount
        entry.asked_at = time.monotonic()
        try:
            await self._threads.run(self._stager.unstage, image_id)
        finally:
            if entry.copy is not None and self._cache is not None:
                self._cache.give_back(entry.copy)
                entry.copy = None

    async def _using_copy(
        self, entry: _Entry, mount: Callable[[ImageId, Path], None]
    ) -> Copy | None:
        """The copy that is mounted now; None: there is none, or it cannot be mounted."""
        image = entry.image
        copy = self._cache.take(image) if self._cache and image else None
        if self._cache is None or copy is None:
            return None
        try:
            await self._threads.run(mount, copy.image_id, copy.path)
        except DrayError as exc:
            log.warning("copy_not_mounted", image=copy.image_id, error=exc.message)
            self._cache.give_back(copy)
            await self._cache.distrust(copy.image_id)
            return None
        return copy

    def _copy_at(self, image_id: ImageId, backing: Path | None) -> Copy | None:
        return self._cache.take_again(image_id, backing) if self._cache and backing else None


def _note_failure(work: asyncio.Task[None]) -> None:
    if not work.cancelled() and (exc := work.exception()) is not None:
        log.warning("mount_not_settled", task=work.get_name(), error=str(exc))
