"""The overview: whether anybody waits, and why."""

from aiohttp import web

from services.gateway.auth.identity import principal_of
from services.gateway.pulls import Pulls
from services.gateway.standing.overview import Overviews
from shared.api import API, Overview
from shared.errors import UnknownSystemError
from shared.http.answers import answer, read_query
from shared.http.conditional import NEVER_KEPT
from shared.http.operation import operation
from shared.models import Strict, SystemName


class OverviewQuery(Strict):
    """GET /overview."""

    system: SystemName | None = None


class OverviewHandlers:
    """How the site stands."""

    def __init__(self, overviews: Overviews, pulls: Pulls) -> None:
        self._overviews = overviews
        self._pulls = pulls

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/overview", self.show_overview)]

    @operation(query=OverviewQuery, gives={200: Overview}, problems=(UnknownSystemError,))
    async def show_overview(self, request: web.Request) -> web.Response:
        """How the site stands: what is under way, what waits, and what there is to worry about.

        Pulls are those that you may see; queues, dead letters, nodes and jobs are told to admins.
        It is at most a second old, nodes and queues two.
        """
        query = read_query(request, OverviewQuery)
        systems = self._pulls.systems(query.system)
        overview = await self._overviews.current(principal_of(request), systems)
        return answer(overview, headers=NEVER_KEPT)
