"""Jobs that the scheduler announces."""

from typing import Annotated, Literal
from urllib.parse import quote

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import NotAllowedError, Scope, principal_of
from services.gateway.cursors import After, Cursors
from services.gateway.feed import TooManyFollowersError
from services.gateway.jobs.jobs import Jobs, JobStillEndingError
from services.gateway.jobs.pages import JobPages
from services.gateway.jobs.views import JobFilter, JobViews
from services.gateway.jobs.watch import JobWatch
from services.gateway.pulls import Pulls
from shared.api import API, JobPage, JobRequest, JobView
from shared.catalog.records import JobRecord
from shared.deadline import Deadline
from shared.errors import ConflictError, NotFoundError, UnknownSystemError
from shared.events import Uid
from shared.hostlist import HostlistError
from shared.http.answers import answer, read_body, read_query
from shared.http.operation import operation
from shared.models import JobId, Strict, SystemName


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
    """GET /jobs/{job_id}. `limit` and `after` are for `nodes=all`.

    With `wait`, the answer comes when all nodes have answered, when the job has ended, or after so
    many seconds; sooner where the gateway's time limit for requests would be over: then ask again.
    """

    nodes: Literal["some", "all"] = "some"
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    after: After = None
    wait: Annotated[float, Field(ge=0, le=300)] = 0


class JobHandlers:
    """What the scheduler says and asks, and users see of it."""

    def __init__(
        self,
        jobs: Jobs,
        views: JobViews,
        pages: JobPages,
        watch: JobWatch,
        *,
        pulls: Pulls,
        cursors: Cursors,
        longest_wait: float,
    ) -> None:
        self._jobs = jobs
        self._watch = watch
        self._longest_wait = longest_wait
        self._views = views
        self._pages = pages
        self._pulls = pulls
        self._cursors = cursors

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/jobs", self.list_jobs),
            web.post(f"{API}/jobs", self.announce_job),
            web.get(f"{API}/jobs/{{job_id}}", self.get_job),
            web.delete(f"{API}/jobs/{{job_id}}", self.release_job),
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
        principal = principal_of(request)
        return answer(await self._pages.page(principal, wanted, query.limit, query.after))

    @operation(
        body=JobRequest,
        gives={202: JobView},
        problems=(NotFoundError, ConflictError, JobStillEndingError, HostlistError),
        needs="admin",
        headers={"Location": "where the job can be followed"},
    )
    async def announce_job(self, request: web.Request) -> web.Response:
        """Announce a job: its nodes mount its images. Announcing it again changes nothing.

        Without nodes, the job reserves its images: they stay until it is announced with nodes, is
        released, or was not mentioned for long. A repeated reservation begins its time anew.
        """
        principal_of(request).require(Scope.ADMIN)
        wanted = await read_body(request, JobRequest)
        job = await self._jobs.announce(wanted, principal_of(request))
        location = {"Location": f"{API}/jobs/{quote(job.job_id)}"}
        return answer(await self._views.show(job), 202, location)

    @operation(
        path=JobPath,
        query=JobQuery,
        gives={200: JobView},
        problems=(NotFoundError, TooManyFollowersError),
        needs="identity",
    )
    async def get_job(self, request: web.Request) -> web.Response:
        """One job, and those of its nodes that are not as they should be, or all."""
        query = read_query(request, JobQuery)
        job_id, principal = request.match_info["job_id"], principal_of(request)
        job = await self._views.get(job_id, principal)
        if query.wait:
            wait = min(query.wait, self._longest_wait)
            await self._watch.answered(job_id, Deadline.after(wait))
            job = await self._views.get(job_id, principal)
        if query.nodes == "some":
            return answer(await self._views.show(job))
        return answer(await self._all_nodes(job, query))

    @operation(path=JobPath, gives={202: JobView}, problems=(NotFoundError,), needs="admin")
    async def release_job(self, request: web.Request) -> web.Response:
        """The job has ended: its nodes give the mounts back."""
        principal_of(request).require(Scope.ADMIN)
        job = await self._jobs.release(request.match_info["job_id"])
        return answer(await self._views.show(job), 202)

    async def _all_nodes(self, job: JobRecord, query: JobQuery) -> JobView:
        # Of this very announcement: ids of jobs are used again.
        kind = f"n{int(job.announced_at.timestamp() * 1e6):x}"
        after = None if query.after is None else self._cursors.open(kind, query.after)
        view = await self._views.show_all(job, after, query.limit)
        if view.next is None:
            return view
        return view.model_copy(update={"next": self._cursors.seal(kind, view.next)})
