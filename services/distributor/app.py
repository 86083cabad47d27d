"""Wires the distributor: bus, pack store, and one queue for each system that it serves."""

import asyncio

from services.distributor.image_lock import remove_stale_locks
from services.distributor.placement import Placements
from services.distributor.readers import ReaderFiles
from services.distributor.removal import Removals
from shared.bus.handling import Handlers
from shared.bus.interface import Bus
from shared.bus.topology import distributor_queue
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import ImageExpireRequested, PlacementRequested, ReadersChanged, RemovalDecided
from shared.files import remove_stale_partials
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
        self._placements = Placements(settings, bus, store)
        self._systems = settings.distributor.systems or tuple(settings.systems)
        self._readers = ReaderFiles(settings)
        self._removals = Removals(settings, bus, self._systems)

    async def subscribe(self) -> None:
        handlers: Handlers = {
            PlacementRequested: self._placements.on_requested,
            ImageExpireRequested: self._removals.on_expire_requested,
            RemovalDecided: self._removals.on_decided,
            ReadersChanged: self._readers.on_changed,
        }
        slots = self._settings.distributor.slots
        for system in self._systems:
            directory = self._settings.systems[system].image_dir
            await asyncio.to_thread(remove_stale_partials, directory)
            await asyncio.to_thread(remove_stale_locks, directory)
            await self.consume(distributor_queue(system), handlers, slots)
        self._removals.start()

    async def stop(self, deadline: Deadline) -> None:
        await self._removals.stop()
        await super().stop(deadline)
