"""REST v1: pulls, images, queue, jobs, nodes and dead letters."""

from typing import Annotated, get_args
from urllib.parse import quote

from aiohttp import web
from pydantic import Field

from services.gateway.feed import ChangeFeed
from services.gateway.handlers.stream import stream_pull
from services.gateway.images import Images
from services.gateway.jobs import Jobs
from services.gateway.pulls import Pulls
from services.gateway.sharing import Sharing
from services.gateway.views import image_detail, image_view, job_view, node_view, pull_view
from shared.api import (
    API,
    DeadLettersView,
    DeadLetterView,
    ImagePage,
    JobRequest,
    NodesView,
    PullRequest,
    QueueView,
)
from shared.bus.interface import Bus
from shared.catalog.records import ImageRecord, ImageType
from shared.deadline import Deadline
from shared.errors import InvalidInputError, NotFoundError
from shared.http.answers import STREAM_ROUTE, answer, read_body, read_query
from shared.models import Strict, SystemName
from shared.states import State

QUEUE_LIMIT = 1000
NODES_LIMIT = 10_000
LETTERS_LIMIT = 200
LETTER_SHOWN = 4096
REPLAY_SECONDS = 10.0
ANYBODY = "anonymous"
ONLY_SYSTEM = "_"
BY_ID = "id"


class ImagesQuery(Strict):
    """GET /images."""

    system: SystemName | None = None
    after: Annotated[str, Field(max_length=1024)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ImageQuery(Strict):
    """GET /images/…; counting who shares its layers takes longer than a lookup may."""

    sharing: bool = False


class QueueQuery(Strict):
    """GET /queue."""

    system: SystemName | None = None


class V1:
    """The handlers and what they call."""

    def __init__(
        self,
        *,
        systems: tuple[str, ...],
        pulls: Pulls,
        images: Images,
        sharing: Sharing,
        jobs: Jobs,
        feed: ChangeFeed,
        bus: Bus,
    ) -> None:
        self._systems = systems
        self._pulls = pulls
        self._images = images
        self._sharing = sharing
        self._jobs = jobs
        self._feed = feed
        self._bus = bus

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/systems", self.list_systems),
            web.post(f"{API}/pulls", self.start_pull),
            web.get(f"{API}/pulls/{{pull_id}}", self.get_pull),
            web.get(f"{API}/pulls/{{pull_id}}/events", self.follow_pull, name=STREAM_ROUTE),
            web.get(f"{API}/images", self.list_images),
            web.get(f"{API}/images/{{system}}/{{type}}/{{reference:.+}}", self.lookup_image),
            web.get(f"{API}/queue", self.show_queue),
            web.post(f"{API}/jobs", self.announce_job),
            web.get(f"{API}/jobs/{{job_id}}", self.get_job),
            web.delete(f"{API}/jobs/{{job_id}}", self.release_job),
            web.get(f"{API}/nodes", self.list_nodes),
            web.get(f"{API}/admin/dead-letters", self.list_dead_letters),
            web.post(f"{API}/admin/dead-letters/{{letter_id}}/replay", self.replay_dead_letter),
        ]

    async def list_systems(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": list(self._systems)})

    async def start_pull(self, request: web.Request) -> web.Response:
        wanted = await read_body(request, PullRequest)
        target = self._pulls.target(wanted.system, wanted.type, wanted.reference)
        record = await self._pulls.request(target, ANYBODY, force=wanted.force)
        location = {"Location": f"{API}/pulls/{quote(record.pull_id)}"}
        return answer(pull_view(record), 200 if record.state is State.READY else 202, location)

    async def get_pull(self, request: web.Request) -> web.Response:
        return answer(pull_view(await self._pulls.get(request.match_info["pull_id"])))

    async def follow_pull(self, request: web.Request) -> web.StreamResponse:
        record = await self._pulls.get(request.match_info["pull_id"])
        return await stream_pull(request, self._feed, record)

    async def list_images(self, request: web.Request) -> web.Response:
        query = read_query(request, ImagesQuery)
        systems = self._chosen(query.system)
        records, after = await self._images.page(systems, query.after, query.limit)
        views = (image_view(record) for record in records)
        return answer(ImagePage(items=tuple(view for view in views if view), next=after))

    async def lookup_image(self, request: web.Request) -> web.Response:
        query = read_query(request, ImageQuery)
        record = await self._found(request)
        view, current = image_view(record), record.current
        assert view is not None
        assert current is not None
        if not query.sharing:
            return answer(view)
        packs = [share.pack for share in current.shares]
        others = await self._sharing.others(current.image_id, packs)
        return answer(image_detail(view, current, others))

    async def show_queue(self, request: web.Request) -> web.Response:
        query = read_query(request, QueueQuery)
        records = await self._pulls.queue(self._chosen(query.system), QUEUE_LIMIT)
        return answer(QueueView(items=tuple(pull_view(record) for record in records)))

    async def announce_job(self, request: web.Request) -> web.Response:
        wanted = await read_body(request, JobRequest)
        job = await self._jobs.announce(wanted, ANYBODY)
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

    async def list_dead_letters(self, _request: web.Request) -> web.Response:
        letters = await self._bus.dead_letters(LETTERS_LIMIT)
        views = tuple(
            DeadLetterView.model_validate({**dict(letter), "body": letter.body[:LETTER_SHOWN]})
            for letter in letters
        )
        return answer(DeadLettersView(items=views))

    async def replay_dead_letter(self, request: web.Request) -> web.Response:
        letter_id = request.match_info["letter_id"]
        if not await self._bus.replay(letter_id, Deadline.after(REPLAY_SECONDS)):
            raise NotFoundError(f"there is no dead letter {letter_id}; it may be replayed already")
        return web.Response(status=204)

    def _chosen(self, system: str | None) -> tuple[str, ...]:
        if system is None:
            return self._systems
        return (self._pulls.system(system),)

    async def _found(self, request: web.Request) -> ImageRecord:
        """The image that a path names, by its reference or by its id."""
        named, itype, reference = (
            request.match_info[part] for part in ("system", "type", "reference")
        )
        system = None if named == ONLY_SYSTEM else named
        if itype == BY_ID:
            return await self._images.by_id(self._pulls.system(system), reference)
        if itype not in get_args(ImageType):
            raise InvalidInputError(f"there is no image type '{itype}'; write docker, or {BY_ID}")
        return await self._images.lookup(self._pulls.target(system, "docker", reference))
