"""One stream for the whole first page of a dashboard."""

from aiohttp import web

from services.gateway.auth.identity import principal_of
from services.gateway.feed import TooManyFollowersError
from services.gateway.handlers.stream import LAST_EVENT_ID, seconds_for, stream
from services.gateway.live.looking import GatewayStoppingError
from services.gateway.live.stream import Live
from services.gateway.pulls import Pulls
from shared.api import API, JobPage, Overview, PullView, QueueGone, QueueView
from shared.deadline import Deadline
from shared.errors import UnknownSystemError
from shared.http.answers import STREAM_ROUTE, read_query
from shared.http.operation import Events, operation
from shared.models import Strict, SystemName


class LiveQuery(Strict):
    """GET /live."""

    system: SystemName | None = None


class LiveHandlers:
    """What an operator looks at."""

    def __init__(self, live: Live, pulls: Pulls) -> None:
        self._live = live
        self._pulls = pulls

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/live", self.follow_all, name=f"{STREAM_ROUTE}-live")]

    @operation(
        query=LiveQuery,
        gives={
            200: Events(
                {
                    "snapshot": QueueView,
                    "pull": PullView,
                    "gone": QueueGone,
                    "overview": Overview,
                    "jobs": JobPage,
                }
            )
        },
        problems=(UnknownSystemError, TooManyFollowersError, GatewayStoppingError),
    )
    async def follow_all(self, request: web.Request) -> web.StreamResponse:
        """Follow the queue, the overview and the jobs in one stream.

        `snapshot`, `pull` and `gone` are those of `/queue/events`, with their ids: with
        Last-Event-ID there is no snapshot if nothing has changed since. `overview` and `jobs` come
        at the start and when they have changed, at most once a second, and are complete. `jobs` are
        the newest that have not ended: of an admin all, of a user their own, and none of nobody's.
        """
        query = read_query(request, LiveQuery)
        systems = self._pulls.systems(query.system)
        principal = principal_of(request)
        last = request.headers.get(LAST_EVENT_ID)
        deadline = Deadline.after(seconds_for(principal))
        system = None if query.system is None else systems[0]
        events = self._live.events(principal, system, systems, last, deadline)
        return await stream(request, events)
