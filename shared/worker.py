"""What every worker on a queue is made of: the bus, its consumers, and a page about its health."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping

from aiohttp import web

from shared.bus.handling import Handlers, dispatch
from shared.bus.interface import Bus, Consumer, WorkQueue
from shared.deadline import Deadline
from shared.http.health import health_routes
from shared.http.server import HttpServer


class Worker(ABC):
    """The base of services that take their work from queues.

    `listen` is where the health page is served; None where another service of the process does.
    """

    name: str

    def __init__(self, bus: Bus, listen: str | None) -> None:
        self._bus = bus
        self._consumers: list[Consumer] = []
        self._server: HttpServer | None = None
        if listen is not None:
            app = web.Application()
            app.add_routes(health_routes(self.checks))
            self._server = HttpServer(app, listen)

    async def start(self, deadline: Deadline) -> None:
        await self._bus.open(deadline)
        await self.subscribe()
        if self._server is not None:
            await self._server.start()

    @abstractmethod
    async def subscribe(self) -> None:
        """Call `consume` for each queue of this worker."""

    async def consume(self, queue: WorkQueue, handlers: Handlers, slots: int) -> None:
        self._consumers.append(await self._bus.consume(queue, dispatch(handlers), slots=slots))

    async def stop(self, deadline: Deadline) -> None:
        if self._server is not None:
            await self._server.stop()
        try:
            # All at once: a queue that is still open would take new work meanwhile.
            async with asyncio.TaskGroup() as group:
                for consumer in self._consumers:
                    group.create_task(consumer.stop(deadline))
        finally:
            await self._bus.close()

    async def checks(self) -> Mapping[str, str | None]:
        return {"bus": None if self._bus.connected else "not connected; reconnecting"}
