"""Jobs: what the scheduler announces, carried to the agents of the job's nodes and back.

A request only records what the scheduler said; telling the nodes is the fan-out's. Each node of a
job is a document of its own.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from services.gateway.auth.identity import Principal
from services.gateway.fan_out import FAN_OUT_SECONDS, FanOut
from services.gateway.images import Images, is_image_id
from services.gateway.pulls import Pulls
from shared.api import JobRequest
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import (
    Failure,
    ImageRecord,
    JobRecord,
    NodeRecord,
    StagingRecord,
    StagingState,
    staging_key,
)
from shared.deadline import Deadline
from shared.errors import CatalogUnavailableError, ConflictError, NotFoundError
from shared.events import (
    Event,
    JobAllocated,
    JobReleased,
    NodeFailed,
    NodeHeartbeat,
    NodeImage,
    NodeStaged,
)
from shared.logging import get_logger
from shared.models import utcnow

log = get_logger(__name__)

JobListener = Callable[[Principal, Sequence[ImageRecord]], None]
"""Told of each job that was announced: whose it is, and its images."""

JobUsers = Callable[[int], Awaitable[Principal]]
"""A user id's name and groups, without what the user may do as an operator."""
_NOBODY: Final = Principal("nobody", frozenset(), "nobody")


class Jobs:
    """The jobs of one site."""

    def __init__(
        self,
        catalog: Catalog,
        images: Images,
        pulls: Pulls,
        fan_out: FanOut,
        note: JobListener,
        *,
        users: JobUsers,
        timeout: float,
    ) -> None:
        self._catalog = catalog
        self._images = images
        self._pulls = pulls
        self._fan_out = fan_out
        self._note = note
        self._users = users
        self._timeout = timeout

    async def announce(self, request: JobRequest, principal: Principal) -> JobRecord:
        """Record a job and wake its nodes. Announcing it again changes nothing."""
        system = self._pulls.system(request.system)
        runs_as = await self._user_of(request, principal)
        records = [await self._image(runs_as, system, name) for name in request.images]
        nodes = tuple(dict.fromkeys(request.nodes))
        wanted = JobRecord(
            key=request.job_id,
            job_id=request.job_id,
            system=system,
            requested=request.images,
            images=tuple(map(_node_image, records)),
            nodes=nodes,
            node_count=len(nodes),
            announced_by=principal.name,
            uid=request.uid,
            announced_at=utcnow(),
            due_at=utcnow() + timedelta(seconds=FAN_OUT_SECONDS),
        )

        def store(found: JobRecord | None) -> Change[JobRecord] | None:
            if found is None:
                return Change(wanted)
            if found.released_at is None:
                return None
            if found.due_at is not None:
                self._fan_out.start(found)
                raise ConflictError(
                    f"the nodes of the last job {request.job_id} are still being told of its end; "
                    "announce it again in a moment"
                )
            # The scheduler has come round to this id again.
            return Change(wanted.but(version=found.version))

        record = await self._catalog.jobs.change(request.job_id, store, self._deadline())
        if record is None or _asked(record) != _asked(wanted):
            raise ConflictError(
                f"job {request.job_id} is already announced with other images or nodes; "
                "release it first"
            )
        if record.announced_at == wanted.announced_at:  # not told of before
            await self._check_images(record)
            self._note(runs_as, records)
        self._fan_out.start(record)
        return record

    async def _check_images(self, job: JobRecord) -> None:
        """Once more: from now on the job keeps its images, but they may just have expired."""
        for image in job.images:
            where = {"image_id": image.image_id, "system": job.system}
            if not await self._catalog.images.find(where, limit=1):
                await self.release(job.job_id)
                raise ConflictError(
                    f"image {image.image_id} has expired at this very moment; pull it, then "
                    f"announce job {job.job_id} again"
                )

    async def release(self, job_id: str) -> JobRecord:
        """The job has ended: its nodes give the mounts back."""
        now = utcnow()

        def mark(found: JobRecord | None) -> Change[JobRecord] | None:
            if found is None or found.released_at is not None:
                return None
            due = now + timedelta(seconds=FAN_OUT_SECONDS)
            return Change(found.but(released_at=now, due_at=due))

        record = await self._catalog.jobs.change(job_id, mark, self._deadline())
        if record is None:
            raise NotFoundError(f"there is no job {job_id}")
        self._fan_out.start(record)
        return record

    async def overdue(self, limit: int) -> int:
        late = await self._catalog.jobs.due(utcnow(), limit)
        for job in late:
            self._fan_out.start(job)
        return 0  # they run on behind; asking at once for more would find the same ones

    async def unanswered(self, limit: int) -> int:
        """Nodes that took the job and never said how it went."""
        silent = await self._catalog.stagings.due(utcnow(), limit)
        for staging in silent:
            message = f"the agent of node {staging.node} did not answer; is it alive?"
            await self._give_up(staging, Failure(code="no_answer", message=message))
        return len(silent)

    async def nodes(
        self, systems: Sequence[str], after: str | None, limit: int
    ) -> list[NodeRecord]:
        where = {"system": list(systems)}
        return await self._catalog.nodes.find(where, after=after, limit=limit)

    async def on_staged(self, event: NodeStaged) -> None:
        await self._staging_ended(event, StagingState.STAGED, None, event.seconds)

    async def on_failed(self, event: NodeFailed) -> None:
        failure = Failure(code=event.code, message=event.message)
        await self._staging_ended(event, StagingState.FAILED, failure, None)

    async def on_heartbeat(self, event: NodeHeartbeat) -> None:
        def store(found: NodeRecord | None) -> Change[NodeRecord]:
            described = NodeRecord(
                key=event.node,
                version=found.version if found else 0,
                node=event.node,
                system=event.system,
                kernel=event.kernel,
                mounter=event.mounter,
                codecs=event.codecs,
                mounts=event.mounts,
                # The node's own clock may be wrong, and must not freeze what we know of it.
                seen_at=utcnow(),
            )
            return Change(described)

        with suppress(CatalogUnavailableError):  # the next one says as much
            await self._catalog.nodes.change(event.node, store, self._deadline())
            for job_id in event.jobs:
                await self._release_again(job_id, event)

    async def _release_again(self, job_id: str, event: NodeHeartbeat) -> None:
        """A node still holds a job that has ended: it was away when it should have heard."""
        job = await self._catalog.jobs.get(job_id)
        if job is None or job.released_at is None or job.released_at >= event.time:
            return

        def tell(found: StagingRecord | None) -> Change[StagingRecord] | None:
            if found is None or not found.released:
                return None
            release = JobReleased(correlation_id=job_id, node=event.node, job_id=job_id)
            return Change(found, (release,))

        key = staging_key(job_id, event.node)
        await self._catalog.stagings.change(key, tell, self._deadline())

    async def no_agent(self, event: Event) -> bool:
        """An event to a node found no agent's queue: the job must hear of it, not wait for it."""
        if isinstance(event, JobAllocated):
            message = (
                f"no agent of node {event.node} is connected; is dray's node agent running there?"
            )
            failed = NodeFailed(
                correlation_id=event.correlation_id,
                causation_id=event.id,
                node=event.node,
                job_id=event.job_id,
                code="no_agent",
                message=message,
            )
            await self.on_failed(failed)
            return True
        # A release that finds nobody: the agent's heartbeat tells what it still holds.
        return isinstance(event, JobReleased)

    async def _user_of(self, request: JobRequest, principal: Principal) -> Principal:
        """As whom a job runs: whoever may announce it may not lend it his eyes."""
        uid = principal.uid if request.uid is None else request.uid
        return _NOBODY if uid is None else await self._users(uid)

    async def _image(self, user: Principal, system: str, name: str) -> ImageRecord:
        if is_image_id(name):
            return await self._images.by_id(user, system, name)
        return await self._images.lookup(user, self._pulls.target(system, "docker", name))

    async def _staging_ended(
        self,
        event: NodeStaged | NodeFailed,
        state: StagingState,
        failure: Failure | None,
        seconds: float | None,
    ) -> None:
        def store(found: StagingRecord | None) -> Change[StagingRecord] | None:
            # An answer to an earlier announcement of this job id says nothing about this one.
            if found is None or found.allocation != event.causation_id:
                return None
            # Late good news beats a failure; nothing takes a mounted image back.
            if found.state in {StagingState.STAGED, state}:
                return None
            ended = found.but(state=state, failure=failure, seconds=seconds, due_at=None)
            return Change(ended)

        key = staging_key(event.job_id, event.node)
        await self._catalog.stagings.change(key, store, self._deadline())

    async def _give_up(self, silent: StagingRecord, failure: Failure) -> None:
        def store(found: StagingRecord | None) -> Change[StagingRecord] | None:
            if found is None or found.version != silent.version:
                return None  # it has answered after all
            return Change(found.but(state=StagingState.FAILED, failure=failure, due_at=None))

        await self._catalog.stagings.change(silent.key, store, self._deadline())

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout)


def _node_image(record: ImageRecord) -> NodeImage:
    current = record.current
    assert current is not None
    return NodeImage(
        image_id=current.image_id, content_digest=current.content_digest, size=current.size
    )


def _asked(job: JobRecord) -> tuple[object, ...]:
    return job.system, job.requested, job.nodes
