"""Wires the distributor: bus, pack store, and one queue for each system that it serves."""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from services.distributor.placement import Placements
from shared.bus.handling import dispatch
from shared.bus.interface import Bus, Consumer
from shared.bus.topology import distributor_queue
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import PlacementRequested
from shared.http.health import health_routes
from shared.http.server import HttpServer
from shared.image.files import remove_stale_partials
from shared.image.store import PackStore
from shared.image.weave import Regions


def build(settings: Settings, bus: Bus, *, serve_health: bool = True) -> "Distributor":
    return Distributor(settings, bus, PackStore(settings.store), serve_health=serve_health)


class Distributor:
    """The distributor as a service."""

    name = "distributor"

    def __init__(self, settings: Settings, bus: Bus, store: Regions, *, serve_health: bool) -> None:
        self._settings = settings
        self._bus = bus
        self._placements = Placements(settings, bus, store)
        self._systems = settings.distributor.systems or tuple(settings.systems)
        self._consumers: list[Consumer] = []
        self._server: HttpServer | None = None
        if serve_health:
            app = web.Application()
            app.add_routes(health_routes(self.checks))
            self._server = HttpServer(app, settings.distributor.listen)

    async def start(self, deadline: Deadline) -> None:
        await self._bus.open(deadline)
        for system in self._systems:
            await asyncio.to_thread(remove_stale_partials, self._settings.systems[system].image_dir)
            consumer = await self._bus.consume(
                distributor_queue(system),
                dispatch({PlacementRequested: self._placements.on_requested}),
                slots=self._settings.distributor.slots,
            )
            self._consumers.append(consumer)
        if self._server is not None:
            await self._server.start()

    async def stop(self, deadline: Deadline) -> None:
        if self._server is not None:
            await self._server.stop()
        for consumer in self._consumers:
            await consumer.stop(deadline)
        await self._bus.close()

    async def checks(self) -> Mapping[str, str | None]:
        return {"bus": None if self._bus.connected else "not connected; reconnecting"}
