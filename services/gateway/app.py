"""Wires the gateway: catalog, bus, logic, HTTP, and the loops behind them."""

import asyncio
import os
from collections.abc import Mapping
from functools import partial

from aiohttp import web

from services.gateway.at_once import AtOnce
from services.gateway.auth.compose import authentication, site_secret
from services.gateway.auth.munge import MAX_CREDENTIAL
from services.gateway.auth.secrets import SiteSecret
from services.gateway.cursors import Cursors
from services.gateway.durations import pull_changed
from services.gateway.feed import ChangeFeed
from services.gateway.front import Front
from services.gateway.handlers.shifter import ShifterHandlers
from services.gateway.handlers.v1.account import AccountHandlers
from services.gateway.handlers.v1.docs import DocsHandlers
from services.gateway.handlers.v1.exports import ExportHandlers
from services.gateway.handlers.v1.finding import Finder
from services.gateway.handlers.v1.images import ImageHandlers
from services.gateway.handlers.v1.imports import ImportHandlers
from services.gateway.handlers.v1.lifecycle import LifecycleHandlers
from services.gateway.handlers.v1.logins import LoginHandlers
from services.gateway.handlers.v1.pulls import PullHandlers
from services.gateway.handlers.v1.readers import ReaderHandlers
from services.gateway.handlers.v1.usage import UsageHandlers
from services.gateway.imports import Imports
from services.gateway.inventory import Inventory
from services.gateway.jobs.parts import JobParts
from services.gateway.lifecycle import Lifecycle
from services.gateway.limits import Limits
from services.gateway.live.parts import LiveParts
from services.gateway.lookups import Lookups
from services.gateway.outbox import OutboxRelay, of_no_system
from services.gateway.past.parts import HistoryParts
from services.gateway.private import private_images
from services.gateway.pulls import Pulls
from services.gateway.repeated import RepeatedLookups
from services.gateway.shifter.asking import WirePulls
from services.gateway.shifter.images import WireImages
from services.gateway.standing.parts import OverviewParts
from services.gateway.stock.storage import StorageBook
from services.gateway.sweep import Sweep
from services.gateway.transitions import Transitions
from services.gateway.usage.service import Usage
from services.gateway.web.pages import page_routes
from shared.bus.handling import Handlers, dispatch
from shared.bus.interface import Bus, Consumer
from shared.bus.topology import GATEWAY_EVENTS, GATEWAY_NODES, GATEWAY_REPORTS
from shared.catalog.interface import Catalog
from shared.catalog.open import catalog_at
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import (
    Event,
    ImageChanged,
    ImageConverted,
    ImageExpired,
    ImageLost,
    ImagePlaced,
    ImageUnchanged,
    InventoryFound,
    InventoryRequested,
    LoginChecked,
    PullFailed,
    PullProgressed,
    RemovalProposed,
)
from shared.http.connections import Connections, room_per_user
from shared.http.guard import Guard
from shared.http.health import health_routes
from shared.http.server import USUAL_HEADER, HttpServer, LocalListen
from shared.http.time_limit import TimeLimit
from shared.tasks import cancel_all, repeat

EVENT_SLOTS = 32
NODE_SLOTS = 256
PING_SECONDS = 2.0
LOGINS_SECONDS = 300.0
FIRST_REQUEST_SECONDS = 30.0


def build(settings: Settings, bus: Bus) -> "Gateway":
    """The gateway with its real catalog."""
    catalog = catalog_at(settings.catalog_url, timeout=settings.catalog.timeout)
    return Gateway(settings, bus, catalog, site_secret(settings))


class Gateway:
    """The gateway as a service."""

    name = "gateway"

    def __init__(self, settings: Settings, bus: Bus, catalog: Catalog, secret: SiteSecret) -> None:
        self._settings = settings
        self._bus = bus
        self._catalog = catalog
        timeout = settings.catalog.timeout
        self._feed = ChangeFeed(catalog)
        lookups = Lookups(catalog, self._feed)
        repeated = RepeatedLookups(self._feed)
        cursors = Cursors(secret)
        private = private_images(settings, catalog, secret)
        self._logins = private.logins
        self._lifecycle = Lifecycle(settings, catalog, bus, self._feed)
        self._inventory = Inventory(
            catalog,
            self._feed,
            bus,
            timeout=timeout,
            publish_timeout=settings.bus.publish_timeout,
        )
        self._pulls = Pulls(
            catalog,
            self._feed,
            Transitions(settings.pull, settings.systems),
            logins=private.logins,
            adoption=private.adoption,
            lifecycle=self._lifecycle,
            timeout=timeout,
        )
        self._usage = Usage(catalog, settings.usage, timeout, tell=self._lifecycle.used)
        self._pulls.listen(self._usage.pull_changed)
        self._pulls.listen(pull_changed)
        self._authentication = authentication(settings, secret)
        self._jobs = JobParts(
            settings,
            catalog,
            self._pulls,
            cursors,
            note=self._usage.job_announced,
            users=self._authentication.authority.ordinary,
        )
        storage = StorageBook(catalog, settings.systems, timeout)
        self._standing = OverviewParts(
            settings, catalog, bus, self._feed, pulls=self._pulls, low=storage.low
        )
        self._live = LiveParts(
            catalog,
            self._feed,
            lookups,
            self._pulls,
            overviews=self._standing.overviews,
            jobs=self._jobs.pages,
        )
        self._history = HistoryParts(
            catalog,
            self._feed,
            self._pulls,
            cursors,
            storage=storage,
            overviews=self._standing.overviews,
            timeout=timeout,
        )
        self._outbox = OutboxRelay(
            catalog, bus, settings.bus.publish_timeout, self._is_undeliverable
        )
        self._sweep = Sweep(
            grace=settings.pull.lease if bus.durable else 0.0, hearing=lambda: bus.connected
        )
        finder = Finder(self._pulls, lookups)
        images_v1 = ImageHandlers(
            self._pulls,
            lookups,
            finder,
            repeated=repeated,
            ledger=self._history.ledger,
            cursors=cursors,
            usage=self._usage,
        )
        imports = Imports(self._pulls, settings.imports)
        handlers = (
            PullHandlers(
                self._pulls,
                lookups,
                self._feed,
                self._live.queue,
                cursors=cursors,
                users=self._authentication.authority.ordinary,
            ),
            ImportHandlers(self._pulls, imports),
            ReaderHandlers(self._pulls),
            ExportHandlers(
                finder,
                lookups,
                self._usage,
                settings.systems,
                per_user=settings.gateway.exports_per_user,
            ),
            images_v1,
            *self._jobs.handlers,
            *self._live.handlers,
            *self._standing.handlers,
            *self._history.handlers,
            UsageHandlers(self._usage, self._pulls, cursors),
            AccountHandlers(self._authentication.issuer),
            LoginHandlers(private.logins),
            private.tickets,
            LifecycleHandlers(self._pulls, self._lifecycle),
            ShifterHandlers(
                images=WireImages(catalog, lookups),
                asking=WirePulls(catalog, self._pulls, timeout),
                imports=imports,
                pulls=self._pulls,
                lookups=lookups,
                repeated=repeated,
                lifecycle=self._lifecycle,
                logins=private.logins,
                usage=self._usage,
            ),
        )
        connections = Connections(
            min(room_per_user(), settings.gateway.connections_per_user),
            free=frozenset({0, os.geteuid()}),
            seconds=FIRST_REQUEST_SECONDS,
        )
        front = Front(
            Guard(settings.gateway.names),
            self._authentication.authenticator,
            _limits(settings),
            TimeLimit(settings.gateway.request_timeout),
            connections,
        )
        app = web.Application(
            middlewares=[front.middleware],
            client_max_size=settings.gateway.max_body_bytes,
        )
        app.add_routes(images_v1.fast_routes())
        for each in (*handlers, DocsHandlers(app.router.routes)):
            app.add_routes(each.routes())
        app.add_routes([*page_routes(), *health_routes(self.checks)])
        self.http = HttpServer(
            app,
            settings.gateway.listen,
            local=LocalListen(
                settings.gateway_socket,
                "gateway.socket",
                required=settings.gateway.socket is not None,
            ),
            connections=connections,
            at_once=AtOnce(front, repeated, self._usage).answer,
            max_header=USUAL_HEADER + MAX_CREDENTIAL,
        )
        self._consumers: list[Consumer] = []
        self._sweeping: list[asyncio.Task[None]] = []

    async def start(self, deadline: Deadline) -> None:
        await self._catalog.open(deadline)
        await self._bus.open(deadline)
        await self._feed.start()
        self._outbox.start()
        self._lifecycle.start()
        self._usage.start()
        self._history.start()
        self._standing.start()
        handle = dispatch(self._handlers())
        self._consumers = [
            await self._bus.consume(queue, self._standing.timed(queue, handle), slots=slots)
            for queue, slots in (
                (GATEWAY_EVENTS, EVENT_SLOTS),
                (GATEWAY_NODES, NODE_SLOTS),
                (GATEWAY_REPORTS, EVENT_SLOTS),
            )
        ]
        if not self._bus.durable:
            await self._pulls.restart_interrupted()
        # One loop each: what one of them stumbles over must not stop the others.
        interval = self._settings.pull.sweep_interval
        self._sweeping = [
            asyncio.create_task(
                repeat(name, interval, partial(self._sweep.run, overdue)), name=name
            )
            for name, overdue in (
                ("sweep-pulls", self._pulls.overdue),
                *self._jobs.overdue,
            )
        ]
        self._sweeping.append(
            asyncio.create_task(
                repeat("logins", LOGINS_SECONDS, self._logins.forget_expired), name="logins"
            )
        )
        await self.http.start()

    async def stop(self, deadline: Deadline) -> None:
        await self._live.stop()
        await self._jobs.hang_up()
        await self.http.stop()
        await cancel_all(*self._sweeping)
        await asyncio.gather(*(consumer.stop(deadline) for consumer in self._consumers))
        await self._lifecycle.stop()
        await self._jobs.stop()
        await self._outbox.stop()
        await self._jobs.close()
        await self._feed.stop()
        await self._usage.stop(deadline)
        await self._history.stop(deadline)
        await self._standing.stop()
        await self._bus.close()
        await self._catalog.close()
        self._authentication.close()

    async def checks(self) -> Mapping[str, str | None]:
        problem = None
        try:
            await self._catalog.ping(Deadline.after(PING_SECONDS))
        except DrayError as exc:
            problem = exc.message
        bus = None if self._bus.connected else "not connected; events wait in the outbox"
        return {"catalog": problem, "bus": bus}

    async def _is_undeliverable(self, event: Event) -> bool:
        """Whether an event that no queue takes need not be tried again."""
        if of_no_system(event, self._settings.systems):
            return True
        return await self._jobs.stagings.no_agent(event)

    def _handlers(self) -> Handlers:
        return {
            PullProgressed: self._pulls.on_progressed,
            PullFailed: self._pulls.on_failed,
            ImageUnchanged: self._pulls.on_unchanged,
            ImageChanged: self._pulls.on_changed,
            ImageConverted: self._pulls.on_converted,
            ImagePlaced: self._pulls.on_placed,
            RemovalProposed: self._lifecycle.removals.on_proposed,
            ImageExpired: self._lifecycle.removals.on_expired,
            ImageLost: self._inventory.on_lost,
            InventoryRequested: self._inventory.on_requested,
            InventoryFound: self._inventory.on_found,
            LoginChecked: self._logins.on_checked,
            **self._jobs.events,
            **self._history.events,
        }


def _limits(settings: Settings) -> Limits:
    gateway = settings.gateway
    return Limits(gateway.requests_per_second, gateway.request_burst, gateway.streams_per_user)
