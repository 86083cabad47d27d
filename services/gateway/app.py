"""Wires the gateway: catalog, bus, logic, HTTP, and the loops behind them."""

import asyncio
from collections.abc import Mapping
from functools import partial

from aiohttp import web

from services.gateway.auth.middleware import authentication_middleware
from services.gateway.fan_out import FanOut
from services.gateway.feed import ChangeFeed
from services.gateway.handlers.v1.images import ImageHandlers
from services.gateway.handlers.v1.jobs import JobHandlers
from services.gateway.handlers.v1.operators import OperatorHandlers
from services.gateway.handlers.v1.pulls import PullHandlers
from services.gateway.images import Images
from services.gateway.jobs import Jobs
from services.gateway.outbox import OutboxRelay
from services.gateway.pulls import Pulls
from services.gateway.sharing import Sharing
from services.gateway.sweep import Sweep
from services.gateway.transitions import Transitions
from services.gateway.web.pages import page_routes
from shared.bus.handling import Handlers, dispatch
from shared.bus.interface import Bus, Consumer
from shared.bus.topology import GATEWAY_EVENTS
from shared.catalog.interface import Catalog
from shared.catalog.open import catalog_at
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import (
    ImageChanged,
    ImageConverted,
    ImagePlaced,
    ImageUnchanged,
    NodeFailed,
    NodeHeartbeat,
    NodeStaged,
    PullFailed,
    PullProgressed,
)
from shared.http.answers import error_middleware
from shared.http.guard import guard_middleware
from shared.http.health import health_routes
from shared.http.server import HttpServer
from shared.tasks import cancel_all, repeat

EVENT_SLOTS = 32
PING_SECONDS = 2.0


def build(settings: Settings, bus: Bus) -> "Gateway":
    """The gateway with its real catalog."""
    return Gateway(
        settings, bus, catalog_at(settings.catalog_url, timeout=settings.catalog.timeout)
    )


class Gateway:
    """The gateway as a service."""

    name = "gateway"

    def __init__(self, settings: Settings, bus: Bus, catalog: Catalog) -> None:
        self._settings = settings
        self._bus = bus
        self._catalog = catalog
        timeout = settings.catalog.timeout
        feed = ChangeFeed(catalog)
        images = Images(catalog)
        self._pulls = Pulls(catalog, feed, Transitions(settings.pull, settings.systems), timeout)
        self._fan_out = FanOut(catalog, timeout=timeout, stage_timeout=settings.agent.stage_timeout)
        self._jobs = Jobs(catalog, images, self._pulls, self._fan_out, timeout=timeout)
        self._outbox = OutboxRelay(catalog, bus, settings.bus.publish_timeout, self._jobs.no_agent)
        self._sweep = Sweep(
            grace=settings.pull.lease if bus.durable else 0.0, hearing=lambda: bus.connected
        )
        handlers = (
            PullHandlers(self._pulls, feed),
            ImageHandlers(self._pulls, images, Sharing(catalog)),
            JobHandlers(self._jobs),
            OperatorHandlers(bus),
        )
        app = web.Application(
            middlewares=[
                error_middleware(settings.gateway.request_timeout),
                guard_middleware(settings.gateway.names),
                authentication_middleware(),
            ],
            client_max_size=settings.gateway.max_body_bytes,
        )
        for each in handlers:
            app.add_routes(each.routes())
        app.add_routes([*page_routes(), *health_routes(self.checks)])
        self.http = HttpServer(app, settings.gateway.listen)
        self._consumer: Consumer | None = None
        self._sweeping: list[asyncio.Task[None]] = []

    async def start(self, deadline: Deadline) -> None:
        await self._catalog.open(deadline)
        await self._bus.open(deadline)
        self._outbox.start()
        self._consumer = await self._bus.consume(
            GATEWAY_EVENTS, dispatch(self._handlers()), slots=EVENT_SLOTS
        )
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
                ("sweep-jobs", self._jobs.overdue),
                ("sweep-stagings", self._jobs.unanswered),
            )
        ]
        await self.http.start()

    async def stop(self, deadline: Deadline) -> None:
        await self.http.stop()
        await cancel_all(*self._sweeping)
        if self._consumer is not None:
            await self._consumer.stop(deadline)
        await self._fan_out.stop()
        await self._outbox.stop()
        await self._bus.close()
        await self._catalog.close()

    async def checks(self) -> Mapping[str, str | None]:
        problem = None
        try:
            await self._catalog.ping(Deadline.after(PING_SECONDS))
        except DrayError as exc:
            problem = exc.message
        bus = None if self._bus.connected else "not connected; events wait in the outbox"
        return {"catalog": problem, "bus": bus}

    def _handlers(self) -> Handlers:
        return {
            PullProgressed: self._pulls.on_progressed,
            PullFailed: self._pulls.on_failed,
            ImageUnchanged: self._pulls.on_unchanged,
            ImageChanged: self._pulls.on_changed,
            ImageConverted: self._pulls.on_converted,
            ImagePlaced: self._pulls.on_placed,
            NodeStaged: self._jobs.on_staged,
            NodeFailed: self._jobs.on_failed,
            NodeHeartbeat: self._jobs.on_heartbeat,
        }
