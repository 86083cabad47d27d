"""Wires the converter: bus, registries, pack store, and the threads that pack."""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from aiohttp import ClientSession, web

from services.converter.layers import LayerPacker
from services.converter.packing.limits import Limits
from services.converter.pulls import Pulls
from services.converter.registries import Registries
from services.converter.registry.transport import open_session
from shared.bus.handling import Handlers, dispatch
from shared.bus.interface import Bus, Consumer, WorkQueue
from shared.bus.topology import CONVERTER_CHECKS, CONVERTER_PULLS
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import PullRequested, RefreshRequested
from shared.http.health import health_routes
from shared.http.server import HttpServer
from shared.image.store import PackStore


def build(settings: Settings, bus: Bus, *, serve_health: bool = True) -> "Converter":
    return Converter(settings, bus, PackStore(settings.store), serve_health=serve_health)


class Converter:
    """The converter as a service."""

    name = "converter"

    def __init__(
        self, settings: Settings, bus: Bus, store: PackStore, *, serve_health: bool
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        workers = settings.converter.slots * settings.converter.parallel_layers
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="pack")
        self._http: ClientSession | None = None
        self._consumers: list[Consumer] = []
        self._server: HttpServer | None = None
        if serve_health:
            app = web.Application()
            app.add_routes(health_routes(self.checks))
            self._server = HttpServer(app, settings.converter.listen)

    async def start(self, deadline: Deadline) -> None:
        own = self._settings.converter
        packer = LayerPacker(
            store=self._store,
            executor=self._executor,
            threads=own.threads or os.cpu_count() or 1,
            limits=Limits(max_bytes=own.max_layer_bytes),
        )
        await asyncio.to_thread(self._store.remove_stale)
        self._http = open_session()
        registries = Registries(self._http, self._settings.registries)
        pulls = Pulls(self._settings, self._bus, registries, packer, self._store)
        await self._bus.open(deadline)
        await self._consume(CONVERTER_PULLS, {PullRequested: pulls.on_requested}, own.slots)
        await self._consume(CONVERTER_CHECKS, {RefreshRequested: pulls.on_refresh}, own.check_slots)
        if self._server is not None:
            await self._server.start()

    async def stop(self, deadline: Deadline) -> None:
        if self._server is not None:
            await self._server.stop()
        for consumer in self._consumers:
            await consumer.stop(deadline)
        await self._bus.close()
        if self._http is not None:
            await self._http.close()
        self._executor.shutdown(wait=False)

    async def checks(self) -> Mapping[str, str | None]:
        return {"bus": None if self._bus.connected else "not connected; reconnecting"}

    async def _consume(self, queue: WorkQueue, handlers: Handlers, slots: int) -> None:
        self._consumers.append(await self._bus.consume(queue, dispatch(handlers), slots=slots))
