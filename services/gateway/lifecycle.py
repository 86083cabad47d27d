"""Puts together what decides about an image's life: what may come in, and when it goes again."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import Counter

from services.gateway.admission import Admission
from services.gateway.auth.identity import Principal
from services.gateway.expiring import (
    Changed,
    Usable,
    by_digest,
    dismissed,
    kept,
    stray,
)
from services.gateway.expiry import Expiry
from services.gateway.feed import ChangeFeed
from services.gateway.held import Held
from services.gateway.quotas import QuotaExceededError, Quotas, TooManyPullsError
from services.gateway.readers import ReadersBook
from services.gateway.removals import Removals
from services.gateway.transitions import PullTarget
from shared.bus.interface import Bus
from shared.catalog.interface import Catalog, Step
from shared.catalog.records import ImageRecord
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import NotAdmittedError
from shared.events import ImageConverted, ImagePlaced
from shared.models import utcnow
from shared.states import State

REFUSED = Counter(
    "dray_pulls_refused_total", "Pulls that rules or quotas of the site did not let on.", ("code",)
)


class Lifecycle:
    """What pulls ask on the way, and tell."""

    def __init__(self, settings: Settings, catalog: Catalog, bus: Bus, feed: ChangeFeed) -> None:
        systems = settings.systems
        self._catalog = catalog
        self._timeout = settings.catalog.timeout
        self._admission = Admission(settings.admission)
        held = Held(catalog)
        self._days = {name: system.expire_after_days for name, system in systems.items()}
        self.expiry = Expiry(catalog, held, self._days.get, self._timeout)
        self.quotas = Quotas(
            feed, settings.quotas, {name: system.max_bytes for name, system in systems.items()}
        )
        self.removals = Removals(
            catalog,
            bus,
            held,
            ReadersBook(catalog, self._timeout),
            timeout=self._timeout,
            publish_timeout=settings.bus.publish_timeout,
        )

    async def may_begin(self, principal: Principal, target: PullTarget) -> None:
        """An error unless this user may begin to pull that."""
        with _counted():
            if target.itype == "docker":  # who may import is a rule of its own
                self._admission.check(target.reference)
            await self.quotas.check(principal, target)

    async def may_be_placed(self, event: ImageConverted) -> None:
        with _counted():
            await self.quotas.check_size(event)

    def used(self, record: Usable) -> None:
        self.expiry.used(record)

    async def overdue(self, record: ImageRecord) -> None:
        """The time of a record has come of which no pull is under way."""
        await self.expiry.overdue(record)

    async def placing(self, record: ImageRecord | None, event: ImagePlaced) -> None:
        """Before the record stands for another image: keep the one that it stands for."""
        if record is None or record.state is not State.TRANSFER:
            return
        if record.attempt != event.attempt or record.image_id == event.image_id:
            return
        digest = by_digest(record)
        if digest is not None:
            await self._keep(record, digest)

    async def was_placed(self, event: ImagePlaced) -> None:
        """Perhaps nobody wanted it any more."""
        await self._change(event.key, partial(stray, event=event))

    async def _keep(self, moving: ImageRecord, digest: ImageRecord) -> None:
        written = False

        def step(found: ImageRecord | None) -> Changed:
            nonlocal written
            change = kept(found, digest, self._days.get(digest.system, 0))
            written = change is not None
            return change

        after = await self._change(digest.key, step)
        still = await self._catalog.images.get(moving.key) if written else moving
        if after is None or (still is not None and still.image_id == digest.image_id):
            return
        # Doubled and late: the reference has moved on before this was written, and perhaps the
        # file has gone as well.
        await self._change(after.key, partial(_undone, version=after.version))

    async def _change(self, key: str, step: Step[ImageRecord]) -> ImageRecord | None:
        return await self._catalog.images.change(key, step, Deadline.after(self._timeout))

    def start(self) -> None:
        self.expiry.start()

    async def stop(self) -> None:
        await self.expiry.stop()


def _undone(found: ImageRecord | None, version: int) -> Changed:
    if found is None or found.version != version or found.state.in_flight:
        return None
    return dismissed(found, utcnow())


@contextmanager
def _counted() -> Iterator[None]:
    try:
        yield
    except (NotAdmittedError, QuotaExceededError, TooManyPullsError) as exc:
        REFUSED.labels(exc.code).inc()
        raise
