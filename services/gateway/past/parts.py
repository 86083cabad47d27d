"""The gateway's part for looking back and for looking through: history, storage, images."""

import asyncio
from typing import Final

from services.gateway.cursors import Cursors
from services.gateway.feed import ChangeFeed
from services.gateway.handlers.v1.history import HistoryHandlers
from services.gateway.handlers.v1.storage import StorageHandlers
from services.gateway.handlers.v1.table import TableHandlers
from services.gateway.past.charts import Charts
from services.gateway.past.figures import ImageFigures, OverviewFigures, Overviews
from services.gateway.past.history import History
from services.gateway.pulls import Pulls
from services.gateway.stock.image_table import ImageTables
from services.gateway.stock.pack_ledger import PackLedger
from services.gateway.stock.storage import StorageBook
from services.gateway.usage.users import Users
from shared.bus.handling import Handlers
from shared.catalog.interface import Catalog
from shared.deadline import Deadline
from shared.events import StorageReported
from shared.tasks import cancel_all, repeat

_FORGET_SECONDS: Final = 3600.0


class HistoryParts:
    """What is kept of the past, and what is known of storage."""

    def __init__(
        self,
        catalog: Catalog,
        feed: ChangeFeed,
        pulls: Pulls,
        cursors: Cursors,
        *,
        storage: StorageBook,
        overviews: Overviews,
        timeout: float,
    ) -> None:
        self._storage = storage
        self.ledger = ledger = PackLedger(feed.directory)
        sources = (OverviewFigures(overviews, pulls.systems(None)), ImageFigures(feed, ledger))
        self._history = History(catalog, sources, timeout)
        pulls.listen(self._history.pull_changed)
        self._forgetting: asyncio.Task[None] | None = None
        self.handlers = (
            HistoryHandlers(Charts(catalog)),
            StorageHandlers(storage, ledger, feed),
            TableHandlers(ImageTables(feed, ledger), Users(catalog), pulls, cursors),
        )

    @property
    def events(self) -> Handlers:
        return {StorageReported: self._storage.on_reported}

    def start(self) -> None:
        self._history.start()
        forgetting = repeat("storage-retention", _FORGET_SECONDS, self._storage.forget)
        self._forgetting = asyncio.create_task(forgetting, name="storage-retention")

    async def stop(self, deadline: Deadline) -> None:
        """Before the catalog is closed: what was counted is stored."""
        if self._forgetting is not None:
            await cancel_all(self._forgetting)
        await self._history.stop(deadline)
