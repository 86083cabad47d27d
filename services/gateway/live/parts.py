"""The gateway's live streams, put together."""

from services.gateway.feed import ChangeFeed
from services.gateway.handlers.v1.live import LiveHandlers
from services.gateway.jobs.pages import JobPages
from services.gateway.live.stream import Live, Overviews
from services.gateway.lookups import Lookups
from services.gateway.pulls import Pulls
from services.gateway.queue import QueueStream
from shared.catalog.interface import Catalog


class LiveParts:
    """What many follow, and how much of it is the same for all of them."""

    def __init__(
        self,
        catalog: Catalog,
        feed: ChangeFeed,
        lookups: Lookups,
        pulls: Pulls,
        *,
        overviews: Overviews,
        jobs: JobPages,
    ) -> None:
        self.queue = QueueStream(lookups, feed)
        self._live = Live(self.queue, overviews, jobs, catalog)
        self.handlers = (LiveHandlers(self._live, pulls),)

    async def stop(self) -> None:
        await self._live.stop()
        await self.queue.stop()
