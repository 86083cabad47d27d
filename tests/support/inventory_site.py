"""A gateway's and a distributor's part in comparing image directories with the catalog."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.distributor.marks import Marks
from services.distributor.mending import Mender
from services.distributor.placement import Terms
from services.distributor.space import FREE
from services.distributor.upkeep import Upkeep
from services.gateway.feed import ChangeFeed
from services.gateway.inventory import Inventory
from shared.bus.embedded import EmbeddedBus
from shared.bus.handling import Handlers, dispatch
from shared.bus.topology import GATEWAY_EVENTS, GATEWAY_REPORTS, distributor_queue
from shared.catalog.interface import Catalog
from shared.deadline import Deadline
from shared.events import (
    ImageLost,
    InventoryExpected,
    InventoryFound,
    InventoryRequested,
    InventoryUnknown,
)
from shared.settings.workers import DistributorSettings
from shared.storage_reports import Place, StorageReports
from shared.store.store import PackStore
from tests.support.lifecycle import SYSTEM


@asynccontextmanager
async def inventory_bus() -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus([GATEWAY_EVENTS, GATEWAY_REPORTS, distributor_queue(SYSTEM)])
    await bus.open(Deadline.after(5))
    yield bus
    await bus.close()


@asynccontextmanager
async def answering(catalog: Catalog, bus: EmbeddedBus) -> AsyncIterator[Inventory]:
    feed = ChangeFeed(catalog)
    await feed.start()
    yield Inventory(catalog, feed, bus, timeout=10, publish_timeout=10)
    await feed.stop()


async def serve(gateway: Inventory, bus: EmbeddedBus) -> None:
    handlers: Handlers = {
        InventoryRequested: gateway.on_requested,
        InventoryFound: gateway.on_found,
        ImageLost: gateway.on_lost,
    }
    await bus.consume(GATEWAY_EVENTS, dispatch(handlers), slots=4)


class Directory:
    """An image directory of a distributor that looks after it."""

    def __init__(self, root: Path, bus: EmbeddedBus, **settings: float) -> None:
        self.path = root / "images"
        self.path.mkdir()
        own = DistributorSettings.model_validate({"reconcile_grace": 1e-6, **settings})
        directories = {SYSTEM: self.path}
        self.mender = Mender(
            directories,
            {SYSTEM: Terms()},
            bus,
            PackStore(root / "store"),
            seconds=10,
            publish_timeout=5,
        )
        place = Place(self.path, FREE.labels(SYSTEM).set, SYSTEM)
        reports = StorageReports(bus, [place], 5)
        self.upkeep = Upkeep(directories, own, bus, self.mender, reports, publish_timeout=5)
        self._bus = bus

    async def serve(self) -> None:
        handlers: Handlers = {
            InventoryExpected: self.upkeep.on_expected,
            InventoryUnknown: self.upkeep.on_unknown,
        }
        await self._bus.consume(distributor_queue(SYSTEM), dispatch(handlers), slots=4)
        self.mender.start()

    def put(self, letter: str, *, size: int = 8192, age: float = 60.0, kinds: str = "") -> None:
        for kind in kinds.split() or ("json", "meta", "squashfs"):
            path = self.path / f"{letter * 64}.{kind}"
            path.write_bytes(bytes(size if kind == "squashfs" else 1))
            then = time.time() - age
            os.utime(path, (then, then))

    def mark(self, letter: str) -> str | None:
        return Marks(self.path).read(letter * 64)
