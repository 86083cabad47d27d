"""Whether an image's file may go: asked by distributors, decided by what the catalog says now.

An image must stay that any record stands for, or is about to. The order of the questions matters,
because nothing holds the catalog still between them; docs/architecture.md has the argument.
"""

from collections.abc import AsyncIterator
from functools import partial

from prometheus_client import Counter

from services.gateway.expiring import settled
from services.gateway.held import Held
from services.gateway.readers import ReadersBook
from shared.bus.interface import Bus
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError
from shared.events import ImageExpired, RemovalDecided, RemovalProposed
from shared.logging import get_logger
from shared.models import ImageId, utcnow
from shared.states import State

_PAGE = 50

DECISIONS = Counter(
    "dray_image_removals_total", "Answers to distributors that asked to remove.", ("answer",)
)

log = get_logger(__name__)


class Removals:
    """Answers distributors, and hears from them what is gone."""

    def __init__(
        self,
        catalog: Catalog,
        bus: Bus,
        held: Held,
        readers: ReadersBook,
        *,
        timeout: float,
        publish_timeout: float,
    ) -> None:
        self._catalog = catalog
        self._bus = bus
        self._held = held
        self._readers = readers
        self._timeout = timeout
        self._publish_timeout = publish_timeout

    async def on_proposed(self, event: RemovalProposed) -> None:
        """No answer means later: the distributor asks again."""
        try:
            await self._answer(event)
        except CatalogUnavailableError as exc:
            # Not tried again here: a catalog that is away for long would fill the dead letters.
            DECISIONS.labels("later").inc()
            log.warning("removal_not_decided", image=event.image_id, error=exc.message)

    async def on_expired(self, event: ImageExpired) -> None:
        await self._settle(event.system, event.image_id)

    async def _answer(self, event: RemovalProposed) -> None:
        if await self._about_to_stand(event.system, event.image_id):
            # First this: who is about to stand for it may do so before the next question.
            DECISIONS.labels("later").inc()
            return
        stays = await self._stands(event.system, event.image_id)
        if not stays and event.image_id in await self._held.images(event.system):
            DECISIONS.labels("later").inc()
            log.info("image_held_by_job", image=event.image_id, system=event.system)
            return
        DECISIONS.labels("stay" if stays else "remove").inc()
        decided = RemovalDecided(
            correlation_id=event.correlation_id,
            causation_id=event.id,
            system=event.system,
            image_id=event.image_id,
            mark=event.mark,
            remove=not stays,
        )
        await self._bus.publish(decided, Deadline.after(self._publish_timeout))
        if stays:
            # Those whose records let it go may not be among its readers any more.
            await self._readers.tell(event.system, event.image_id)
            await self._settle(event.system, event.image_id)

    async def _about_to_stand(self, system: str, image_id: ImageId) -> bool:
        async for record in self._records({"system": system, "state": State.TRANSFER.value}):
            if record.recipe is not None and record.recipe.image_id == image_id:
                return True
        return False

    async def _stands(self, system: str, image_id: ImageId) -> bool:
        where = {"system": system, "image_id": image_id}
        return bool(await self._catalog.images.find(where, limit=1))

    async def _settle(self, system: str, image_id: ImageId) -> None:
        """References that waited for what becomes of the image."""
        async for record in self._records({"system": system, "leaving": image_id}):
            step = partial(settled, image=image_id, now=utcnow())
            deadline = Deadline.after(self._timeout)
            await self._catalog.images.change(record.key, step, deadline)

    async def _records(self, where: dict[str, str]) -> AsyncIterator[ImageRecord]:
        after: str | None = None
        while page := await self._catalog.images.find(where, after=after, limit=_PAGE):
            for record in page:
                yield record
            after = page[-1].key
