"""The gateway's grids of nodes, put together."""

from services.gateway.handlers.v1.grids import GridHandlers
from services.gateway.jobs.views import JobViews
from services.gateway.live.job_grids import JobGrids
from services.gateway.live.job_stream import JobStream
from services.gateway.live.node_grids import NodeGrids
from services.gateway.pulls import Pulls
from shared.catalog.interface import Catalog


class GridParts:
    """Grids of jobs and of systems, kept while somebody looks."""

    def __init__(self, catalog: Catalog, views: JobViews, pulls: Pulls) -> None:
        self._jobs = JobGrids(catalog)
        self._stream = JobStream(self._jobs, views)
        self._nodes = NodeGrids(catalog)
        self.handlers = (GridHandlers(self._stream, self._nodes, pulls),)

    async def stop(self) -> None:
        await self._stream.stop()
        await self._jobs.stop()
        await self._nodes.stop()
