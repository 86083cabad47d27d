"""Wires the converter: bus, registries, pack store, and the threads that pack."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from aiohttp import ClientSession

from services.converter.conversion import Conversion
from services.converter.housekeeping import Housekeeping
from services.converter.layers import LayerPacker
from services.converter.packing.compressors import Compressors
from services.converter.packing.limits import Limits
from services.converter.pulls import Pulls
from services.converter.registries import Registries
from services.converter.registry.transport import open_session
from shared.bus.interface import Bus
from shared.bus.topology import CONVERTER_CHECKS, CONVERTER_PULLS
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import PullRequested, RefreshRequested
from shared.store.store import PackStore
from shared.worker import Worker


def build(settings: Settings, bus: Bus, *, serve_health: bool = True) -> "Converter":
    return Converter(settings, bus, PackStore(settings.store), serve_health=serve_health)


class Converter(Worker):
    """The converter as a service."""

    name = "converter"

    def __init__(
        self, settings: Settings, bus: Bus, store: PackStore, *, serve_health: bool
    ) -> None:
        super().__init__(bus, settings.converter.listen if serve_health else None)
        self._settings = settings
        self._store = store
        self._housekeeping = Housekeeping(settings, store)
        workers = settings.converter.slots * settings.converter.parallel_layers
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="pack")
        self._compressors = Compressors(settings.converter.threads)
        self._http: ClientSession | None = None

    async def subscribe(self) -> None:
        own = self._settings.converter
        await asyncio.to_thread(self._store.remove_stale)
        packer = LayerPacker(
            store=self._store,
            executor=self._executor,
            compressors=self._compressors,
            limits=Limits(max_bytes=own.max_layer_bytes),
        )
        self._http = open_session()
        registries = Registries(self._http, self._settings.registries)
        conversion = Conversion(self._store, packer, own.parallel_layers)
        pulls = Pulls(self._settings, self._bus, registries, conversion)
        await self.consume(CONVERTER_PULLS, {PullRequested: pulls.on_requested}, own.slots)
        await self.consume(CONVERTER_CHECKS, {RefreshRequested: pulls.on_refresh}, own.check_slots)
        self._housekeeping.start()

    async def stop(self, deadline: Deadline) -> None:
        await self._housekeeping.stop()
        await super().stop(deadline)
        if self._http is not None:
            await self._http.close()
        self._executor.shutdown(wait=False)
        self._compressors.close()
