"""What happened to a job, and when."""

from aiohttp import web

from services.gateway.auth.identity import principal_of
from services.gateway.handlers.v1.jobs import JobPath
from services.gateway.jobs.timelines import JobTimelines, TooManyTimelinesError
from services.gateway.jobs.views import JobViews
from shared.api import API, JobTimeline
from shared.errors import NotFoundError
from shared.http.answers import answer
from shared.http.operation import operation


class TimelineHandlers:
    """Of jobs; what happened to a pull is in the pull itself."""

    def __init__(self, views: JobViews, timelines: JobTimelines) -> None:
        self._views = views
        self._timelines = timelines

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/jobs/{{job_id}}/timeline", self.get_timeline)]

    @operation(
        path=JobPath,
        gives={200: JobTimeline},
        problems=(NotFoundError, TooManyTimelinesError),
        needs="identity",
    )
    async def get_timeline(self, request: web.Request) -> web.Response:
        """A job's time line: from its reservation to its end, and how its nodes got its images.

        All times are those of the gateways' clocks. `first_rank` is told by nodes whose agent runs
        as root, with their next heartbeat. Of a job that runs, the nodes' part may be 2 s old.
        """
        job = await self._views.get(request.match_info["job_id"], principal_of(request))
        return answer(await self._timelines.of(job))
