"""Very many nodes at a glance: of one job, also live, and of a system."""

from aiohttp import web

from services.gateway.auth.identity import principal_of
from services.gateway.feed import TooManyFollowersError
from services.gateway.handlers.stream import seconds_for, stream
from services.gateway.handlers.v1.jobs import JobPath
from services.gateway.live.job_stream import JobStream
from services.gateway.live.looking import GatewayStoppingError
from services.gateway.live.node_grids import NodeGrids
from services.gateway.pulls import Pulls
from shared.api import API, JobGrid, JobGridChange, JobLive, NodeGrid
from shared.deadline import Deadline
from shared.errors import NotFoundError, UnknownSystemError
from shared.http.answers import STREAM_ROUTE, read_query
from shared.http.conditional import conditional
from shared.http.operation import Events, operation
from shared.models import Strict, SystemName


class NodeGridQuery(Strict):
    """GET /nodes/grid. Without `system`, the site's only or first one."""

    system: SystemName | None = None


class GridHandlers:
    """A letter for each node."""

    def __init__(self, jobs: JobStream, nodes: NodeGrids, pulls: Pulls) -> None:
        self._jobs = jobs
        self._nodes = nodes
        self._pulls = pulls

    def routes(self) -> list[web.RouteDef]:
        job = f"{API}/jobs/{{job_id}}"
        return [
            web.get(f"{job}/grid", self.job_grid),
            web.get(f"{job}/events", self.follow_job, name=f"{STREAM_ROUTE}-job"),
            web.get(f"{API}/nodes/grid", self.node_grid),
        ]

    @operation(
        path=JobPath,
        gives={200: JobGrid},
        problems=(NotFoundError, TooManyFollowersError),
        needs="identity",
        etag=True,
    )
    async def job_grid(self, request: web.Request) -> web.Response:
        """Where each node of a job is, in the order of its hostlist.

        `P` pending, `S` staged, `I` in place, `F` failed, `L` lost, `R` released.
        """
        job_id = request.match_info["job_id"]
        return conditional(request, *await self._jobs.grid(job_id, principal_of(request)))

    @operation(
        path=JobPath,
        gives={200: Events({"grid": JobGrid, "change": JobGridChange, "job": JobLive})},
        problems=(NotFoundError, TooManyFollowersError, GatewayStoppingError),
        needs="identity",
    )
    async def follow_job(self, request: web.Request) -> web.StreamResponse:
        """Follow a job's nodes until it was released and all of them know.

        First `grid`, then `change` with the new letters of some nodes, twice a second at most;
        where most of it changed, or the job was announced anew, `grid` again. `job` has its numbers
        and the first nodes with trouble, once a second at most. Events have no ids: a new
        connection begins with the grid.
        """
        principal = principal_of(request)
        deadline = Deadline.after(seconds_for(principal))
        events = self._jobs.events(request.match_info["job_id"], principal, deadline)
        return await stream(request, events)

    @operation(
        query=NodeGridQuery, gives={200: NodeGrid}, problems=(UnknownSystemError,), etag=True
    )
    async def node_grid(self, request: web.Request) -> web.Response:
        """All nodes of a system: `A` alive, `B` alive with mounts, `L` lost."""
        system = self._pulls.system(read_query(request, NodeGridQuery).system)
        return conditional(request, *await self._nodes.grid(system))
