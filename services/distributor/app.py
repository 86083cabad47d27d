"""Wires the distributor: bus, pack store, and one queue for each system that it serves."""

from functools import partial

from services.distributor.mending import Mender
from services.distributor.placement import Placements, Terms
from services.distributor.readers import ReaderFiles
from services.distributor.removal import Removals
from services.distributor.space import Space, tell_free
from services.distributor.upkeep import Upkeep
from shared.bus.handling import Handlers
from shared.bus.interface import Bus
from shared.bus.topology import distributor_queue
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import (
    ImageExpireRequested,
    InventoryExpected,
    InventoryUnknown,
    PlacementRequested,
    ReadersChanged,
    RemovalDecided,
)
from shared.storage_reports import Place, StorageReports
from shared.store.store import PackStore
from shared.worker import Worker


def build(settings: Settings, bus: Bus, *, serve_health: bool = True) -> "Distributor":
    return Distributor(settings, bus, PackStore(settings.store), serve_health=serve_health)


class Distributor(Worker):
    """The distributor as a service."""

    name = "distributor"

    def __init__(
        self, settings: Settings, bus: Bus, store: PackStore, *, serve_health: bool
    ) -> None:
        super().__init__(bus, settings.distributor.listen if serve_health else None)
        self._settings = settings
        own, space = settings.distributor, Space()
        timeout = settings.bus.publish_timeout
        self._systems = own.systems or tuple(settings.systems)
        served = {name: settings.systems[name] for name in self._systems}
        self._placements = Placements(settings, bus, store, space)
        self._readers = ReaderFiles(settings)
        self._removals = Removals(settings, bus, self._systems)
        directories = {name: system.image_dir for name, system in served.items()}
        terms = {
            name: Terms.of(system, space, own.placement_timeout) for name, system in served.items()
        }
        self._mender = Mender(
            directories,
            terms,
            bus,
            store,
            seconds=own.placement_timeout,
            publish_timeout=timeout,
        )
        places = [
            Place(system.image_dir, partial(tell_free, name), name, system.reserve_bytes)
            for name, system in served.items()
        ]
        self._reports = StorageReports(bus, places, timeout)
        self._upkeep = Upkeep(
            directories, own, bus, self._mender, self._reports, publish_timeout=timeout
        )

    async def subscribe(self) -> None:
        handlers: Handlers = {
            PlacementRequested: self._placements.on_requested,
            ImageExpireRequested: self._removals.on_expire_requested,
            RemovalDecided: self._removals.on_decided,
            ReadersChanged: self._readers.on_changed,
            InventoryExpected: self._upkeep.on_expected,
            InventoryUnknown: self._upkeep.on_unknown,
        }
        await self._upkeep.clear()
        slots = self._settings.distributor.slots
        for system in self._systems:
            await self.consume(distributor_queue(system), handlers, slots)
        self._removals.start()
        self._mender.start()
        self._upkeep.start()
        self._reports.start()

    async def stop(self, deadline: Deadline) -> None:
        await self._reports.stop()
        await self._upkeep.stop()
        await self._mender.stop()
        await self._removals.stop()
        await super().stop(deadline)
