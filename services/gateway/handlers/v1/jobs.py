"""Jobs that the scheduler announces, and the nodes' agents."""

from urllib.parse import quote

from aiohttp import web

from services.gateway.auth.identity import principal_of
from services.gateway.jobs import Jobs
from services.gateway.views import job_view, node_view
from shared.api import API, JobRequest, NodesView
from shared.http.answers import answer, read_body

NODES_LIMIT = 10_000


class JobHandlers:
    """What the scheduler says and asks."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{API}/jobs", self.announce_job),
            web.get(f"{API}/jobs/{{job_id}}", self.get_job),
            web.delete(f"{API}/jobs/{{job_id}}", self.release_job),
            web.get(f"{API}/nodes", self.list_nodes),
        ]

    async def announce_job(self, request: web.Request) -> web.Response:
        wanted = await read_body(request, JobRequest)
        job = await self._jobs.announce(wanted, principal_of(request).name)
        _, stagings = await self._jobs.get(job.job_id)
        return answer(job_view(job, stagings), 202, {"Location": f"{API}/jobs/{quote(job.job_id)}"})

    async def get_job(self, request: web.Request) -> web.Response:
        job, stagings = await self._jobs.get(request.match_info["job_id"])
        return answer(job_view(job, stagings))

    async def release_job(self, request: web.Request) -> web.Response:
        job = await self._jobs.release(request.match_info["job_id"])
        _, stagings = await self._jobs.get(job.job_id)
        return answer(job_view(job, stagings), 202)

    async def list_nodes(self, _request: web.Request) -> web.Response:
        records = await self._jobs.nodes(NODES_LIMIT)
        return answer(NodesView(items=tuple(node_view(record) for record in records)))
