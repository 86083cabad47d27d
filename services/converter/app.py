"""Wires the converter: bus, registries, pack store, and the processes that pack."""

import asyncio
from typing import Final

from aiohttp import ClientSession

from services.converter.conversion import Conversion
from services.converter.housekeeping import FREE, Housekeeping
from services.converter.imports import Imports
from services.converter.layers import LayerPacker
from services.converter.logins import Logins
from services.converter.origins import Origins
from services.converter.packers.packers import Packers
from services.converter.packing.limits import Limits
from services.converter.pulls import Pulls
from services.converter.registries import Registries
from services.converter.registry.transport import open_session
from services.converter.tickets import TicketOffice
from services.converter.user_files.as_user import Users
from shared.bus.handling import Handlers
from shared.bus.interface import Bus
from shared.bus.topology import CONVERTER_CHECKS, CONVERTER_PULLS
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import LoginRequested, PullRequested, RefreshRequested
from shared.storage_reports import Place, StorageReports
from shared.store.store import PackStore
from shared.worker import Worker

SCRATCH: Final = "scratch"
"""In the store, which nobody else may look into: archives that had to be expanded."""


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
        place = Place(store.root, FREE.set)
        self._reports = StorageReports(bus, [place], settings.bus.publish_timeout)
        self._housekeeping = Housekeeping(settings, store, self._reports)
        self._packers = Packers(settings.converter.threads)
        self._http: ClientSession | None = None

    async def subscribe(self) -> None:
        own = self._settings.converter
        await asyncio.to_thread(self._store.keep_to_itself)
        await asyncio.to_thread(self._store.remove_stale)
        limits = Limits(max_bytes=own.max_layer_bytes)
        packer = LayerPacker(
            store=self._store,
            packers=self._packers,
            limits=limits,
            origins=Origins(self._store),
        )
        self._http = open_session()
        registries = Registries(self._http, self._settings.registries)
        conversion = Conversion(self._store, packer, own.parallel_layers)
        tickets = TicketOffice(self._settings)
        imports = Imports(
            Users(own.import_dirs, own.import_min_uid),
            registries,
            self._store.root / SCRATCH,
            limits,
        )
        pulls = Pulls(
            self._settings, self._bus, registries, conversion, tickets=tickets, imports=imports
        )
        logins = Logins(self._bus, registries, tickets, self._settings.bus.publish_timeout)
        await self.consume(CONVERTER_PULLS, {PullRequested: pulls.on_requested}, own.slots)
        checks: Handlers = {
            RefreshRequested: pulls.on_refresh,
            LoginRequested: logins.on_requested,
        }
        await self.consume(CONVERTER_CHECKS, checks, own.check_slots)
        self._housekeeping.start()
        self._reports.start()

    async def stop(self, deadline: Deadline) -> None:
        await self._reports.stop()
        await self._housekeeping.stop()
        await super().stop(deadline)
        if self._http is not None:
            await self._http.close()
        await self._packers.close()
