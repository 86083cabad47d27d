"""The gateway's part for jobs and nodes, put together."""

from datetime import timedelta
from typing import Final

from services.gateway.cursors import Cursors
from services.gateway.handlers.v1.grids import GridHandlers
from services.gateway.handlers.v1.jobs import JobHandlers
from services.gateway.handlers.v1.nodes import NodeHandlers
from services.gateway.handlers.v1.timelines import TimelineHandlers
from services.gateway.images import Images
from services.gateway.jobs.answers import JobAnswers
from services.gateway.jobs.fan_out import FanOut
from services.gateway.jobs.jobs import JobListener, Jobs, JobUsers
from services.gateway.jobs.nodes import Nodes
from services.gateway.jobs.pages import JobPages
from services.gateway.jobs.stagings import Stagings
from services.gateway.jobs.timelines import JobTimelines
from services.gateway.jobs.views import JobViews
from services.gateway.jobs.watch import JobWatch
from services.gateway.live.grid_parts import GridParts
from services.gateway.pulls import Pulls
from services.gateway.sweep import Overdue
from shared.bus.handling import Handlers
from shared.catalog.interface import Catalog
from shared.config import Settings
from shared.events import NodeFailed, NodeHeartbeat, NodeStaged

_OF_A_REQUEST: Final = 0.8
"""So much of its time may pass with waiting."""


class JobParts:
    """Jobs, their nodes, and who tells and asks of them."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        pulls: Pulls,
        cursors: Cursors,
        *,
        note: JobListener,
        users: JobUsers,
    ) -> None:
        timeout = settings.catalog.timeout
        self._fan_out = FanOut(
            catalog,
            timeout=timeout,
            stage_timeout=settings.agent.stage_timeout,
            keep=timedelta(days=settings.jobs.keep_days),
        )
        self.stagings = Stagings(catalog, timeout)
        self._nodes = Nodes(
            catalog,
            self._fan_out,
            settings.jobs,
            heartbeat=settings.agent.heartbeat,
            timeout=timeout,
        )
        self._jobs = Jobs(
            catalog,
            Images(catalog),
            pulls,
            self._fan_out,
            note,
            users=users,
            rules=settings.jobs,
            timeout=timeout,
        )
        views = JobViews(catalog)
        self.pages = JobPages(views, cursors)
        self._watch = JobWatch(catalog, views)
        longest_wait = _OF_A_REQUEST * settings.gateway.request_timeout
        self._timelines = JobTimelines(catalog)
        self._grids = GridParts(catalog, views, pulls)
        self._answers = JobAnswers(catalog, views, timeout)
        self.handlers: tuple[JobHandlers | NodeHandlers | TimelineHandlers | GridHandlers, ...] = (
            JobHandlers(
                self._jobs,
                views,
                self.pages,
                self._watch,
                pulls=pulls,
                cursors=cursors,
                longest_wait=longest_wait,
            ),
            NodeHandlers(self._nodes, pulls, cursors),
            TimelineHandlers(views, self._timelines),
            *self._grids.handlers,
        )

    @property
    def events(self) -> Handlers:
        return {
            NodeStaged: self.stagings.on_staged,
            NodeFailed: self.stagings.on_failed,
            NodeHeartbeat: self._nodes.on_heartbeat,
        }

    @property
    def overdue(self) -> tuple[tuple[str, Overdue], ...]:
        """What the sweep looks after."""
        return (
            ("sweep-jobs", self._jobs.overdue),
            ("sweep-stagings", self.stagings.overdue),
            ("sweep-nodes", self._nodes.overdue),
        )

    async def hang_up(self) -> None:
        """Nobody follows a job any more."""
        await self._grids.stop()

    async def stop(self) -> None:
        """What is under way is finished by the sweep of any gateway."""
        await self._fan_out.stop()
        await self._watch.stop()
        await self._timelines.stop()

    async def close(self) -> None:
        """When nothing asks for changes any more."""
        await self._answers.stop()
        await self.stagings.stop()
        await self._nodes.stop()
