"""Jobs that the scheduler announces, and the nodes' agents."""

import json
from typing import Annotated, Literal
from urllib.parse import quote

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import NotAllowedError, Scope, principal_of
from services.gateway.cursors import After, Cursors
from services.gateway.job_views import JobFilter, JobViews
from services.gateway.jobs import Jobs
from services.gateway.pulls import Pulls
from services.gateway.views import node_view
from shared.api import API, JobPage, JobRequest, JobView, NodesView
from shared.catalog.records import JobRecord
from shared.catalog.totals import Place
from shared.errors import ConflictError, NotFoundError, UnknownSystemError
from shared.events import Uid
from shared.http.answers import answer, read_body, read_query
from shared.http.operation import operation
from shared.models import JobId, Strict, SystemName

NODES = "nodes"
JOBS = "jobs"


class JobsQuery(Strict):
    """GET /jobs. Of a user's own jobs; an admin sees all, or those of one `uid`."""

    system: SystemName | None = None
    uid: Uid | None = None
    running: bool = False
    """Only those that were not released yet."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    after: After = None


class JobPath(Strict):
    """/jobs/{job_id}."""

    job_id: JobId


class JobQuery(Strict):
    """GET /jobs/{job_id}. `limit` and `after` are for `nodes=all`."""

    nodes: Literal["some", "all"] = "some"
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    after: After = None


class NodesQuery(Strict):
    """GET /nodes."""

    system: SystemName | None = None
    after: After = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class JobHandlers:
    """What the scheduler says and asks, and users see of it."""

    def __init__(self, jobs: Jobs, views: JobViews, pulls: Pulls, cursors: Cursors) -> None:
        self._jobs = jobs
        self._views = views
        self._pulls = pulls
        self._cursors = cursors

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/jobs", self.list_jobs),
            web.post(f"{API}/jobs", self.announce_job),
            web.get(f"{API}/jobs/{{job_id}}", self.get_job),
            web.delete(f"{API}/jobs/{{job_id}}", self.release_job),
            web.get(f"{API}/nodes", self.list_nodes),
        ]

    @operation(
        query=JobsQuery,
        gives={200: JobPage},
        problems=(UnknownSystemError, NotAllowedError),
        needs="identity",
    )
    async def list_jobs(self, request: web.Request) -> web.Response:
        """Jobs, the newest first, with the number of their nodes in each state."""
        query = read_query(request, JobsQuery)
        system = None if query.system is None else self._pulls.system(query.system)
        wanted = JobFilter(system, query.uid, query.running)
        beyond = None
        if query.after is not None:
            beyond = Place(*json.loads(self._cursors.open(JOBS, query.after)))
        jobs, following = await self._views.page(principal_of(request), wanted, beyond, query.limit)
        cursor = None
        if following is not None:
            cursor = self._cursors.seal(JOBS, json.dumps([following.value, following.key]))
        return answer(JobPage(items=tuple(jobs), next=cursor))

    @operation(
        body=JobRequest,
        gives={202: JobView},
        problems=(NotFoundError, ConflictError),
        needs="admin",
        headers={"Location": "where the job can be followed"},
    )
    async def announce_job(self, request: web.Request) -> web.Response:
        """Announce a job: its nodes mount its images. Announcing it again changes nothing."""
        principal_of(request).require(Scope.ADMIN)
        wanted = await read_body(request, JobRequest)
        job = await self._jobs.announce(wanted, principal_of(request))
        location = {"Location": f"{API}/jobs/{quote(job.job_id)}"}
        return answer(await self._views.show(job), 202, location)

    @operation(
        path=JobPath,
        query=JobQuery,
        gives={200: JobView},
        problems=(NotFoundError,),
        needs="identity",
    )
    async def get_job(self, request: web.Request) -> web.Response:
        """One job, and those of its nodes that are not as they should be, or all."""
        query = read_query(request, JobQuery)
        job = await self._views.get(request.match_info["job_id"], principal_of(request))
        if query.nodes == "some":
            return answer(await self._views.show(job))
        return answer(await self._all_nodes(job, query))

    @operation(path=JobPath, gives={202: JobView}, problems=(NotFoundError,), needs="admin")
    async def release_job(self, request: web.Request) -> web.Response:
        """The job has ended: its nodes give the mounts back."""
        principal_of(request).require(Scope.ADMIN)
        job = await self._jobs.release(request.match_info["job_id"])
        return answer(await self._views.show(job), 202)

    @operation(query=NodesQuery, gives={200: NodesView}, problems=(UnknownSystemError,))
    async def list_nodes(self, request: web.Request) -> web.Response:
        """The nodes' agents, as they last described themselves."""
        query = read_query(request, NodesQuery)
        systems = self._pulls.systems(query.system)
        after = None if query.after is None else self._cursors.open(NODES, query.after)
        records = await self._jobs.nodes(systems, after, query.limit + 1)
        page = records[: query.limit]
        more = self._cursors.seal(NODES, page[-1].key) if len(records) > query.limit else None
        return answer(NodesView(items=tuple(map(node_view, page)), next=more))

    async def _all_nodes(self, job: JobRecord, query: JobQuery) -> JobView:
        # Of this very announcement: ids of jobs are used again.
        kind = f"n{int(job.announced_at.timestamp() * 1e6):x}"
        after = None if query.after is None else self._cursors.open(kind, query.after)
        view = await self._views.show_all(job, after, query.limit)
        if view.next is None:
            return view
        return view.model_copy(update={"next": self._cursors.seal(kind, view.next)})
