"""What the catalog says of image directories, page by page, and what it makes of their losses.

Distributors ask, and tell what they find. That a file is unknown is said by what this gateway has
in memory, as a hint: before it goes, the catalog itself is asked (`removals`). That an image is
lost changes its records, so that the next pull makes it again.
"""

from functools import partial
from typing import Final

from prometheus_client import Counter

from services.gateway.expiring import expire_request
from services.gateway.feed import ChangeFeed
from services.gateway.steps import moved
from services.gateway.transitions import FAILURE_SHOWN, Changed
from shared.bus.interface import Bus
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import Failure, ImageRecord
from shared.deadline import Deadline
from shared.events import (
    Event,
    ExpectedImage,
    ImageLost,
    InventoryExpected,
    InventoryFound,
    InventoryRequested,
    InventoryUnknown,
)
from shared.logging import get_logger
from shared.models import Bytes, ImageId, Instant, Tolerant, utcnow
from shared.states import State

PAGE: Final = 200
_RECORDS: Final = 50

LOST = Counter(
    "dray_references_lost_total", "References whose image was missing or damaged for good."
)

log = get_logger(__name__)


class _Standing(Tolerant):
    image_id: ImageId
    size: Bytes
    ready_at: Instant


class _Outline(Tolerant):
    current: _Standing | None = None


class Inventory:
    """Answers distributors about what should stand, and hears what is lost."""

    def __init__(
        self,
        catalog: Catalog,
        feed: ChangeFeed,
        bus: Bus,
        *,
        timeout: float,
        publish_timeout: float,
    ) -> None:
        self._images = catalog.images
        self._feed = feed
        self._bus = bus
        self._timeout = timeout
        self._publish_timeout = publish_timeout

    async def on_requested(self, event: InventoryRequested) -> None:
        # All keys of a system begin like this, and stand together.
        prefix = f"{event.system}/"
        after = max(prefix, event.after or "")
        page = await self._images.outlines(_Outline, after=after, limit=PAGE)
        mine = [(key, outline.current) for key, outline in page if key.startswith(prefix)]
        images = {
            current.image_id: ExpectedImage(
                image_id=current.image_id, size=current.size, ready_at=current.ready_at
            )
            for _, current in mine
            if current is not None
        }
        expected = InventoryExpected(
            correlation_id=event.correlation_id,
            causation_id=event.id,
            system=event.system,
            images=tuple(images.values()),
            next=mine[-1][0] if mine and len(mine) == len(page) else None,
        )
        await self._publish(expected)

    async def on_found(self, event: InventoryFound) -> None:
        await self._feed.fresh()
        of_image = self._feed.directory.of_image
        unknown = tuple(each for each in event.images if not of_image(event.system, each))
        if not unknown:
            return
        if not await self._images.find({"system": event.system}, limit=1):
            log.warning(
                "catalog_knows_nothing",
                system=event.system,
                found=len(unknown),
                advice="is this the site's catalog? none of the images is asked to go",
            )
            return
        await self._publish(
            InventoryUnknown(
                correlation_id=event.correlation_id,
                causation_id=event.id,
                system=event.system,
                images=unknown,
            )
        )

    async def on_lost(self, event: ImageLost) -> None:
        after: str | None = None
        where = {"system": event.system, "image_id": event.image_id}
        while page := await self._images.find(where, after=after, limit=_RECORDS):
            for record in page:
                step = partial(lost, event=event)
                changed = await self._images.change(record.key, step, Deadline.after(self._timeout))
                if changed is not None and changed.version != record.version:
                    LOST.inc()
                    log.warning("image_lost", reference=record.reference, system=event.system)
            after = page[-1].key

    async def _publish(self, event: Event) -> None:
        await self._bus.publish(event, Deadline.after(self._publish_timeout))


def lost(record: ImageRecord | None, event: ImageLost) -> Changed:
    """The image that a record stands for is gone: a lookup must not find it any more.

    A failure that is told for a day, since it was READY; what is under way goes on. Whatever is
    left of the image's files may go.
    """
    if record is None or record.current is None or record.image_id != event.image_id:
        return None
    if record.current.ready_at > event.as_of:
        return None  # placed since
    now = utcnow()
    after = record.but(current=None, image_id=None, expires_at=None)
    if record.state is State.READY:
        message = (
            f"the image was lost on {record.system} and could not be made again by itself "
            f"({event.message}); pull it again"
        )
        after = moved(
            after,
            State.FAILURE,
            now,
            failure=Failure(code="image_lost", message=message),
            waiting_since=now,
            due_at=now + FAILURE_SHOWN,
        )
    return Change(after, (expire_request(after, event.image_id),))
