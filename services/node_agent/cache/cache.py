"""When an image is copied to this node, how long a job waits for that, and what it gets instead.

A copy is made once, whoever wants it, and goes on when nobody waits any more: the next job has it.
Nothing here keeps a job from starting, but for an image that is known to be damaged.
"""

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

from services.node_agent.cache import measuring
from services.node_agent.cache.busy import first_read_seconds
from services.node_agent.cache.copying import copy_image
from services.node_agent.cache.errors import CacheFullError, CopyUncertainError
from services.node_agent.cache.shelf import Copy, Shelf
from services.node_agent.cache.throttle import Throttle
from services.node_agent.sidecar import read_recipe
from services.node_agent.threads import DaemonThreads
from shared.api import CachedView, CacheView
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import NodeCache, NodeImage
from shared.image.errors import ImageCorruptError
from shared.image.making.verify import verify_image
from shared.logging import get_logger
from shared.models import ImageId, Sha256
from shared.settings.agent import CacheSettings
from shared.tasks import cancel_all

log = get_logger(__name__)

WAIT_SHARE: Final = 0.6
"""Of a job's time: the rest is for mounting in place."""
_PROBES: Final = 16
_MOST_WORK: Final = 64
"""Copies that wait for their turn."""
_STOP_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 60.0
"""After a copy that failed for what takes long, so that not each job fails it anew."""
_REMEMBERED: Final = 256


_Key = tuple[ImageId, Sha256]


class Offer(Enum):
    """What the cache can do about an image."""

    COPY = "copy"
    IN_PLACE = "in place, as the policy says"
    FALLBACK = "in place, for want of a copy"


class Cache:
    """The cache of this node. Its methods are for the event loop."""

    def __init__(self, settings: CacheSettings, shelf: Shelf, image_dir: Path) -> None:
        self._settings = settings
        self._shelf = shelf
        self._image_dir = image_dir
        self._throttle = Throttle(settings.rate)
        self._copying = DaemonThreads(settings.copies, "copying")
        self._looking = DaemonThreads(_PROBES, "looking")
        # By what was asked for: whoever names wrong bytes stands in nobody's way.
        self._work: dict[_Key, asyncio.Task[None]] = {}
        self._failed: OrderedDict[_Key, float] = OrderedDict()
        self._probes: dict[ImageId, asyncio.Future[float]] = {}
        self._cancelled = threading.Event()

    @property
    def view(self) -> NodeCache:
        copies = self._shelf.copies
        return NodeCache(
            policy=self._settings.policy,
            max_bytes=self._shelf.max_bytes,
            used_bytes=self._shelf.used_bytes,
            images=len(copies),
        )

    @property
    def status(self) -> CacheView:
        copies = tuple(
            CachedView(
                image_id=copy.image_id,
                size=copy.size,
                in_use=copy.users > 0,
                pinned=self._shelf.is_pinned(copy.image_id),
                sound=copy.sound,
                used_at=datetime.fromtimestamp(copy.used_at, UTC),
            )
            for copy in self._shelf.copies
        )
        return CacheView(**self.view.model_dump(), copies=copies)

    async def pin(self, image: NodeImage, deadline: Deadline) -> None:
        """Have a copy, whatever the policy is, that is not evicted."""
        await self._looking.run(self._shelf.pin, image.image_id)
        if not self._is_here(image):
            async with deadline.bound(f"copying image {image.image_id}"):
                await asyncio.shield(self._brought(image))

    async def unpin(self, image_id: ImageId) -> None:
        await self._looking.run(self._shelf.unpin, image_id)

    async def close(self) -> None:
        """A copy that is under way is given up."""
        self._cancelled.set()
        if self._work:
            _, hung = await asyncio.wait(self._work.values(), timeout=_STOP_SECONDS)
            await cancel_all(*hung)
        self._shelf.close()

    async def offer(self, image: NodeImage, deadline: Deadline) -> Offer:
        """Have a copy, if the policy wants one, and as long as the job can wait for it."""
        if self._is_here(image):
            return Offer.COPY
        policy = self._settings.policy
        pinned = self._shelf.is_pinned(image.image_id)
        if _key(image) not in self._work:
            if not pinned and policy == "in_place":
                return Offer.IN_PLACE
            if self._has_failed(image):
                return _fallback("failed_before")
            if len(self._work) >= _MOST_WORK:
                return _fallback("too_many")
            if not pinned and policy == "copy_when_busy" and not await self._is_busy(image):
                return Offer.IN_PLACE
        return await self._wait_for(self._brought(image), image, deadline)

    def take(self, image: NodeImage) -> Copy | None:
        """A copy to be mounted, which stays until it is given back."""
        return self._shelf.take(image.image_id) if self._is_here(image) else None

    def take_again(self, image_id: ImageId, backing: Path) -> Copy | None:
        """What an earlier agent has mounted, if it was the copy that is here."""
        copy = self._shelf.get(image_id)
        return self._shelf.take(image_id) if copy and copy.path == backing else None

    def give_back(self, copy: Copy) -> None:
        self._shelf.give_back(copy)

    async def distrust(self, image_id: ImageId) -> None:
        await self._looking.run(self._shelf.distrust, image_id)

    def _brought(self, image: NodeImage) -> asyncio.Task[None]:
        """Copied, or read in full where it is suspicious; the work is shared by all."""
        key = _key(image)
        work = self._work.get(key)
        if work is None:
            work = asyncio.create_task(self._bring(image), name=f"copy-{image.image_id}")
            self._work[key] = work
            work.add_done_callback(lambda _: self._work.pop(key, None))
            work.add_done_callback(_look_at_result)
        return work

    def _is_here(self, image: NodeImage) -> bool:
        copy = self._shelf.get(image.image_id)
        return copy is not None and copy.sound and copy.content_digest == image.content_digest

    async def _wait_for(
        self, work: asyncio.Task[None], image: NodeImage, deadline: Deadline
    ) -> Offer:
        seconds = min(self._settings.patience, WAIT_SHARE * deadline.remaining())
        await asyncio.wait([work], timeout=seconds)
        if not work.done():
            log.info("copy_not_waited_for", image=image.image_id, seconds=seconds)
            return _fallback("late")
        exc = None if work.cancelled() else work.exception()
        if isinstance(exc, ImageCorruptError):
            raise exc
        if self._is_here(image):
            return Offer.COPY
        return _fallback(exc.code if isinstance(exc, DrayError) else "copy_failed")

    async def _bring(self, image: NodeImage) -> None:
        try:
            if not await self._is_proven(image):
                await self._copying.run(self._copy, image)
        except BaseException as exc:
            if isinstance(exc, Exception):
                if not isinstance(exc, ImageCorruptError | CacheFullError):
                    self._remember_failure(_key(image))
                log.warning("image_not_copied", image=image.image_id, error=str(exc))
            raise

    async def _is_proven(self, image: NodeImage) -> bool:
        copy = self._shelf.get(image.image_id)
        if copy is None or copy.content_digest != image.content_digest:
            return False
        if not copy.sound:
            await self._copying.run(self._prove, copy)
        return self._is_here(image)

    def _prove(self, copy: Copy) -> None:
        """Read a copy that somebody may have changed. Blocks."""
        card = copy.card()
        try:
            if card is not None:
                verify_image(copy.path, card.recipe, self._cancelled)
                self._shelf.confirm(copy, card)
                log.info("cached_image_proven", image=copy.image_id)
                return
        except (ImageCorruptError, OSError) as exc:
            log.warning("cached_image_damaged", image=copy.image_id, error=str(exc))
        self._shelf.remove(copy.image_id)

    def _copy(self, image: NodeImage) -> None:
        started = time.monotonic()
        shared_file = self._image_dir / f"{image.image_id}.squashfs"
        recipe = read_recipe(shared_file.with_suffix(".json"), image.image_id)
        if recipe.content_digest != image.content_digest:
            raise CopyUncertainError(
                f"the sidecar of image {image.image_id} is not of the bytes that the job wants: "
                "it was placed anew, or changed"
            )
        tally = copy_image(recipe, shared_file, self._shelf, self._throttle, self._cancelled)
        for donor in tally.damaged:
            log.warning("cached_image_suspicious", image=donor)
            self._shelf.distrust(donor)
        measuring.COPIED.inc(tally.copied)
        measuring.SAVED.inc(tally.saved)
        log.info(
            "image_copied",
            image=image.image_id,
            copied=tally.copied,
            saved=tally.saved,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _is_busy(self, image: NodeImage) -> bool:
        """Also if it does not answer. All who ask at once share one look."""
        longest = self._settings.busy_seconds
        image_id = image.image_id
        probe = self._probes.get(image_id)
        if probe is None:
            file = self._image_dir / f"{image_id}.squashfs"
            probe = asyncio.ensure_future(self._looking.run(first_read_seconds, file))
            self._probes[image_id] = probe
            probe.add_done_callback(lambda _: self._probes.pop(image_id, None))
            probe.add_done_callback(_look_at_result)
        await asyncio.wait([probe], timeout=longest)
        with contextlib.suppress(OSError, asyncio.InvalidStateError):
            return probe.result() > longest
        return True

    def _has_failed(self, image: NodeImage) -> bool:
        failed_at = self._failed.get(_key(image))
        return failed_at is not None and time.monotonic() - failed_at < _AGAIN_SECONDS

    def _remember_failure(self, key: _Key) -> None:
        self._failed[key] = time.monotonic()
        self._failed.move_to_end(key)
        if len(self._failed) > _REMEMBERED:
            self._failed.popitem(last=False)


def _key(image: NodeImage) -> _Key:
    return image.image_id, image.content_digest


def _fallback(code: str) -> Offer:
    measuring.FALLBACKS.labels(code).inc()
    return Offer.FALLBACK


def _look_at_result(done: asyncio.Future[Any]) -> None:
    """Whoever wanted it may have gone."""
    if not done.cancelled():
        done.exception()
