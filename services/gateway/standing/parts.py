"""The gateway's part that tells how the site stands, put together."""

import asyncio
from functools import partial

from services.gateway.feed import ChangeFeed
from services.gateway.handlers.v1.operators import OperatorHandlers
from services.gateway.handlers.v1.overview import OverviewHandlers
from services.gateway.pulls import Pulls
from services.gateway.standing.event_waits import EventWaits
from services.gateway.standing.gauges import GAUGES, INTERVAL, refresh
from services.gateway.standing.overview import Overviews
from services.gateway.standing.site import LowLook, Standings
from shared.bus.interface import Bus, Handler, WorkQueue
from shared.catalog.interface import Catalog
from shared.config import Settings
from shared.tasks import cancel_all, repeat


class OverviewParts:
    """Overviews for users and for Prometheus, and what operators do about them."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        bus: Bus,
        feed: ChangeFeed,
        *,
        pulls: Pulls,
        low: LowLook,
    ) -> None:
        self._systems = tuple(settings.systems)
        self._standings = Standings(catalog, bus, self._systems, low)
        self._waits = EventWaits()
        self.overviews = Overviews(feed, self._standings, self._waits, bus)
        self.handlers: tuple[OverviewHandlers | OperatorHandlers, ...] = (
            OverviewHandlers(self.overviews, pulls),
            OperatorHandlers(bus),
        )
        self._tasks: list[asyncio.Task[None]] = []

    def timed(self, queue: WorkQueue, handler: Handler) -> Handler:
        """The handler of a queue, with a look at how long its events wait."""
        return self._waits.of(queue.name, handler)

    def start(self) -> None:
        work = partial(refresh, self.overviews, self._systems)
        self._tasks = [asyncio.create_task(repeat("gauges", INTERVAL, work), name="gauges")]

    async def stop(self) -> None:
        await cancel_all(*self._tasks)
        GAUGES.forget()
        await self._standings.stop()
