"""The agent's end of the bus: it may be down for long, and the node goes on without it."""

import asyncio
import os
import random
from typing import Final

from services.node_agent.cache.cache import Cache
from services.node_agent.capacity import capacity
from services.node_agent.entries import Entries
from services.node_agent.errors import JobEndedError
from services.node_agent.holds import Holds
from services.node_agent.jobs import Jobs
from services.node_agent.mounter import Mounter
from shared.bus.handling import dispatch
from shared.bus.interface import Bus, Consumer
from shared.bus.topology import agent_queue
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import (
    Event,
    JobAllocated,
    JobReleased,
    NodeFailed,
    NodeHeartbeat,
    NodeStaged,
    new_id,
)
from shared.logging import get_logger
from shared.tasks import cancel_all, repeat

log = get_logger(__name__)

EVENT_SLOTS: Final = 16
_FIRST_TRY_SECONDS: Final = 5.0
_TRY_SECONDS: Final = 15.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_LOOK_SECONDS: Final = 1.0
_MAX_JOBS: Final = 1024


class Uplink:
    """Takes the node's events, and reports."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        *,
        jobs: Jobs,
        holds: Holds,
        mounter: Mounter,
        cache: Cache | None,
        entries: Entries,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._jobs = jobs
        self._holds = holds
        self._mounter = mounter
        self._cache = cache
        self._entries = entries
        self._start_id = new_id()
        self._node = settings.agent.node
        self._consumer: Consumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._was_connected = True

    async def start(self, deadline: Deadline) -> None:
        """Connect now if the bus is there, or else as soon as it is."""
        connected = await self._try(deadline.sooner(_FIRST_TRY_SECONDS))
        self._task = asyncio.create_task(self._run(connected=connected), name="uplink")

    async def stop(self, deadline: Deadline) -> None:
        if self._task is not None:
            await cancel_all(self._task)
        if self._consumer is not None:
            await self._consumer.stop(deadline)
        await self._bus.close()

    async def _run(self, *, connected: bool) -> None:
        pause = _FIRST_PAUSE
        while not connected:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)
            connected = await self._try(Deadline.after(_TRY_SECONDS))
        await asyncio.gather(
            repeat("heartbeat", self._settings.agent.heartbeat, self._beat),
            repeat("reconnection", _LOOK_SECONDS, self._beat_when_back),
        )

    async def _try(self, deadline: Deadline) -> bool:
        try:
            async with deadline.bound("connecting to the bus"):
                await self._bus.open(deadline)
                self._consumer = await self._bus.consume(
                    agent_queue(self._node),
                    dispatch({JobAllocated: self._allocated, JobReleased: self._jobs.released}),
                    slots=EVENT_SLOTS,
                )
        except DrayError as exc:
            log.warning("bus_not_reached", code=exc.code, error=exc.message)
            return False
        return True

    async def _allocated(self, event: JobAllocated) -> None:
        try:
            staged = await self._jobs.allocated(event)
        except JobEndedError:
            return
        except DrayError as exc:
            log.warning("job_not_staged", code=exc.code, error=exc.message)
            await self._publish(
                NodeFailed(
                    correlation_id=event.job_id,
                    causation_id=event.id,
                    node=self._node,
                    job_id=event.job_id,
                    code=exc.code,
                    message=exc.message[:4096],
                )
            )
            return
        if staged is not None:
            await self._publish(
                NodeStaged(
                    correlation_id=event.job_id,
                    causation_id=event.id,
                    node=self._node,
                    job_id=event.job_id,
                    seconds=staged.seconds,
                    in_place=staged.in_place,
                )
            )

    async def _beat_when_back(self) -> None:
        """What was sent to a node without a connection may be lost: have it told again soon."""
        connected = self._bus.connected
        if connected and not self._was_connected:
            await self._beat()
        self._was_connected = connected

    async def _beat(self) -> None:
        news = self._entries.news()
        await self._publish(
            NodeHeartbeat(
                correlation_id=self._node[:160],
                node=self._node,
                system=self._settings.agent.system,
                kernel=os.uname().release,
                mounter=self._mounter.how,
                codecs=tuple(sorted(self._mounter.codecs)),
                mounts=len(self._holds.views),
                jobs=self._jobs.announced[:_MAX_JOBS],
                entered=news,
                start_id=self._start_id,
                capacity=capacity(self._cache.view if self._cache else None),
            )
        )
        self._entries.told(news)

    async def _publish(self, event: Event) -> None:
        await self._bus.publish(event, Deadline.after(self._settings.bus.publish_timeout))
