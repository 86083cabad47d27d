"""Pulls and the queue."""

from urllib.parse import quote

from aiohttp import web

from services.gateway.auth.identity import principal_of
from services.gateway.feed import ChangeFeed
from services.gateway.handlers.stream import stream_pull
from services.gateway.pulls import Pulls
from services.gateway.views import pull_view
from shared.api import API, PullRequest, QueueView
from shared.http.answers import STREAM_ROUTE, answer, read_body, read_query
from shared.models import Strict, SystemName
from shared.states import State

QUEUE_LIMIT = 1000


class QueueQuery(Strict):
    """GET /queue."""

    system: SystemName | None = None


class PullHandlers:
    """What is asked for, and how far it is."""

    def __init__(self, pulls: Pulls, feed: ChangeFeed) -> None:
        self._pulls = pulls
        self._feed = feed

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{API}/pulls", self.start_pull),
            web.get(f"{API}/pulls/{{pull_id}}", self.get_pull),
            web.get(f"{API}/pulls/{{pull_id}}/events", self.follow_pull, name=STREAM_ROUTE),
            web.get(f"{API}/queue", self.show_queue),
        ]

    async def start_pull(self, request: web.Request) -> web.Response:
        wanted = await read_body(request, PullRequest)
        target = self._pulls.target(wanted.system, wanted.type, wanted.reference)
        record = await self._pulls.request(target, principal_of(request).name, force=wanted.force)
        location = {"Location": f"{API}/pulls/{quote(record.pull_id)}"}
        return answer(pull_view(record), 200 if record.state is State.READY else 202, location)

    async def get_pull(self, request: web.Request) -> web.Response:
        return answer(pull_view(await self._pulls.get(request.match_info["pull_id"])))

    async def follow_pull(self, request: web.Request) -> web.StreamResponse:
        record = await self._pulls.get(request.match_info["pull_id"])
        return await stream_pull(request, self._feed, record)

    async def show_queue(self, request: web.Request) -> web.Response:
        query = read_query(request, QueueQuery)
        records = await self._pulls.queue(self._pulls.systems(query.system), QUEUE_LIMIT)
        return answer(QueueView(items=tuple(pull_view(record) for record in records)))
