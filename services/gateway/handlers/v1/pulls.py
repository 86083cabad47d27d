"""Pulls and the queue."""

import json
from typing import Annotated, Final
from urllib.parse import quote

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import Principal, Scope, principal_of
from services.gateway.cursors import After, Cursors
from services.gateway.feed import ChangeFeed, TooManyFollowersError
from services.gateway.handlers.stream import LAST_EVENT_ID, pull_events, seconds_for, stream
from services.gateway.jobs.jobs import JobUsers
from services.gateway.live.looking import GatewayStoppingError
from services.gateway.lookups import Lookups, etag_of
from services.gateway.pulls import Pulls
from services.gateway.queue import QueueStream, place_text, queue_page
from services.gateway.views import pull_view
from shared.api import API, ImportRequest, PullRequest, PullView, QueueGone, QueueView
from shared.deadline import Deadline
from shared.errors import ConflictError, NotFoundError, UnknownSystemError
from shared.events import Readers, Uid
from shared.http.answers import STREAM_ROUTE, answer, read_body, read_query
from shared.http.conditional import NEVER_KEPT, conditional
from shared.http.operation import Events, operation
from shared.models import Strict, SystemName
from shared.states import State

CURSORS: Final = "queue"


class FollowQuery(Strict):
    """GET /queue/events."""

    system: SystemName | None = None


class QueueQuery(FollowQuery):
    """GET /queue."""

    after: After = None
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class PullPath(Strict):
    """Which pull."""

    pull_id: str


class PullHandlers:
    """What is asked for, and how far it is."""

    def __init__(
        self,
        pulls: Pulls,
        lookups: Lookups,
        feed: ChangeFeed,
        queue: QueueStream,
        *,
        cursors: Cursors,
        users: JobUsers,
    ) -> None:
        self._users = users
        self._pulls = pulls
        self._lookups = lookups
        self._feed = feed
        self._queue = queue
        self._cursors = cursors

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"{API}/pulls", self.start_pull),
            web.get(f"{API}/pulls/{{pull_id}}", self.get_pull),
            web.get(f"{API}/pulls/{{pull_id}}/events", self.follow_pull, name=STREAM_ROUTE),
            web.get(f"{API}/queue", self.show_queue),
            web.get(f"{API}/queue/events", self.follow_queue, name=f"{STREAM_ROUTE}-queue"),
        ]

    @operation(
        body=PullRequest,
        gives={200: PullView, 202: PullView},
        problems=(UnknownSystemError, NotFoundError, ConflictError),
        headers={"Location": "Where to ask how far it is."},
    )
    async def start_pull(self, request: web.Request) -> web.Response:
        """Ask for an image.

        200: it is READY as it is. 202: it is on its way; whoever asks for the same joins the same
        pull. Asking again is harmless.
        """
        principal_of(request).require(Scope.PULL)
        wanted = await read_body(request, PullRequest)
        principal = await self._for_whom(principal_of(request), wanted.uid)
        target = self._pulls.target(wanted.system, wanted.type, wanted.reference)
        readers = named_readers(wanted)
        record = await self._pulls.request(target, principal, force=wanted.force, readers=readers)
        location = {"Location": f"{API}/pulls/{quote(record.pull_id)}"}
        return answer(pull_view(record), 200 if record.state is State.READY else 202, location)

    @operation(path=PullPath, gives={200: PullView}, problems=(NotFoundError,))
    async def get_pull(self, request: web.Request) -> web.Response:
        """How far a pull is."""
        principal = principal_of(request)
        record = await self._pulls.get(request.match_info["pull_id"], principal)
        return answer(pull_view(record), headers=NEVER_KEPT)

    @operation(
        path=PullPath,
        gives={200: Events({"pull": PullView}), 204: None},
        problems=(NotFoundError, TooManyFollowersError),
    )
    async def follow_pull(self, request: web.Request) -> web.StreamResponse:
        """Follow a pull to its end.

        The first event is the pull as it stands. With the Last-Event-ID of a pull's end the answer
        is 204, which tells an EventSource that there is nothing more.
        """
        principal = principal_of(request)
        record = await self._pulls.get(request.match_info["pull_id"], principal)
        last = request.headers.get(LAST_EVENT_ID)
        return await stream(request, pull_events(self._feed, record, principal, last))

    @operation(query=QueueQuery, gives={200: QueueView}, problems=(UnknownSystemError,), etag=True)
    async def show_queue(self, request: web.Request) -> web.Response:
        """What is under way, then what failed in the last day, the newest first in each."""
        query = read_query(request, QueueQuery)
        principal = principal_of(request)
        entries = await self._lookups.queued(principal, self._pulls.systems(query.system))
        after = None if query.after is None else self._cursors.open(CURSORS, query.after)
        page = queue_page(entries, after, query.limit + 1)
        more, page = len(page) > query.limit, page[: query.limit]
        found = await self._lookups.pulls(principal, page)
        cursor = self._cursors.seal(CURSORS, place_text(page[-1])) if more else None
        items = b",".join(made.body for _, made in found)
        body = b'{"items":[' + items + b'],"next":' + json.dumps(cursor).encode() + b"}"
        etags = [made.etag for _, made in found]
        return conditional(request, body, etag_of(json.dumps([etags, cursor]).encode()))

    @operation(
        query=FollowQuery,
        gives={200: Events({"snapshot": QueueView, "pull": PullView, "gone": QueueGone})},
        problems=(UnknownSystemError, TooManyFollowersError, GatewayStoppingError),
    )
    async def follow_queue(self, request: web.Request) -> web.StreamResponse:
        """Follow the queue.

        First a snapshot of all of it, at most 1000 pulls; then each pull that is new, changes or
        ends, and the id of each that has left. With Last-Event-ID there is no snapshot if nothing
        has changed since.
        """
        query = read_query(request, FollowQuery)
        systems = self._pulls.systems(query.system)
        last = request.headers.get(LAST_EVENT_ID)
        principal = principal_of(request)
        deadline = Deadline.after(seconds_for(principal))
        return await stream(request, self._queue.events(principal, systems, last, deadline))

    async def _for_whom(self, principal: Principal, uid: Uid | None) -> Principal:
        """The scheduler stages in for the users of its jobs: with their logins, on their quotas."""
        if uid is None or uid == principal.uid:
            return principal
        principal.require(Scope.ADMIN)
        return await self._users(uid)


def named_readers(wanted: PullRequest | ImportRequest) -> Readers | None:
    """Whom a pull or an import names; None if it says nothing of that."""
    if wanted.allowed_uids is None and wanted.allowed_gids is None:
        return None
    return Readers(uids=wanted.allowed_uids or (), gids=wanted.allowed_gids or ())
