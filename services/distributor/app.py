"""Wires the distributor: bus, pack store, and one queue for each system that it serves."""

import asyncio

from services.distributor.placement import Placements
from shared.bus.handling import Handlers
from shared.bus.interface import Bus
from shared.bus.topology import distributor_queue
from shared.config import Settings
from shared.events import PlacementRequested
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

    async def subscribe(self) -> None:
        handlers: Handlers = {PlacementRequested: self._placements.on_requested}
        slots = self._settings.distributor.slots
        for system in self._systems:
            await asyncio.to_thread(remove_stale_partials, self._settings.systems[system].image_dir)
            await self.consume(distributor_queue(system), handlers, slots)
