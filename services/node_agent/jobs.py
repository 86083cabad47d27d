"""The jobs of this node: what each holds, who may end it, and what is stale.

Events arrive doubled, late and out of order, and the same job is asked for by the scheduler's
event, by its prolog and by each of its ranks. All of them meet here.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.node_agent.callers import Caller, ended, is_running
from services.node_agent.errors import (
    ForbiddenError,
    JobEndedError,
    JobNotTiedError,
    TooManyJobsError,
)
from services.node_agent.holds import Holds
from services.node_agent.readers import User
from services.node_agent.state import JobFiles, JobRecord
from shared.api import MountRequest, MountView
from shared.deadline import Deadline
from shared.errors import DrayError, InvalidInputError
from shared.events import JobAllocated, JobReleased, NodeImage
from shared.logging import get_logger
from shared.models import ImageId, JobId
from shared.tasks import cancel_all

log = get_logger(__name__)

SITE: Final = None
"""The owner of a job that the scheduler or the administrator made."""
REMEMBERED_RELEASES: Final = 4096
MAX_IMAGES_PER_JOB: Final = 64
MAX_JOBS_PER_USER: Final = 1024
_RELEASE_SECONDS: Final = 60.0


@dataclass(eq=False, slots=True)
class _Job:
    """A job is the holder of its images. `wanted` is on disk before anything is mounted."""

    job_id: JobId
    owner: int | None
    announced_at: datetime | None = None
    caller: Caller | None = None
    wanted: set[ImageId] = field(default_factory=set)
    held: set[ImageId] = field(default_factory=set)
    saved: JobRecord | None = None
    waiting: int = 0
    ended: bool = False

    def record(self) -> JobRecord:
        return JobRecord(
            job_id=self.job_id,
            owner=self.owner,
            announced_at=self.announced_at,
            images=tuple(sorted(self.wanted)),
            caller=self.caller,
        )


class Jobs:
    """All jobs on this node."""

    def __init__(self, holds: Holds, files: JobFiles, *, system: str, stage_timeout: float) -> None:
        self._holds = holds
        self._files = files
        self._system = system
        self._stage_timeout = stage_timeout
        self._jobs: dict[JobId, _Job] = {}
        self._released: OrderedDict[JobId, datetime] = OrderedDict()
        self._watches: dict[_Job, asyncio.Task[None]] = {}

    @property
    def view(self) -> dict[str, tuple[ImageId, ...]]:
        return {job.job_id: tuple(sorted(job.held)) for job in self._jobs.values()}

    async def readable(self, image_ids: Iterable[ImageId], user: User) -> frozenset[ImageId]:
        """Those of the images that this user may know of."""
        return await self._holds.readable(image_ids, user)

    @property
    def announced(self) -> tuple[JobId, ...]:
        """The scheduler's, which it ends; the longest here first."""
        return tuple(
            job.job_id
            for job in self._jobs.values()
            if job.owner is SITE and job.announced_at is not None
        )

    async def adopt(self) -> None:
        """Continue where an earlier agent stopped, or was stopped."""
        records = []
        for record in await self._files.load():
            if record.caller is None or is_running(record.caller):
                records.append(record)
            else:
                await self._files.remove(record.job_id)
        wanted = frozenset(image_id for record in records for image_id in record.images)
        found = await self._holds.adopt(wanted)
        for record in records:
            mounted = found.intersection(record.images)
            if not mounted:  # the node was booted since, or the agent died before it mounted
                await self._files.remove(record.job_id)
                continue
            job = _Job(record.job_id, record.owner, record.announced_at, record.caller)
            job.wanted, job.held = set(mounted), set(mounted)
            self._jobs[job.job_id] = job
            for image_id in mounted:
                self._holds.hold_adopted(image_id, job)
            self._watch(job)
            log.info("job_adopted", job=job.job_id, images=sorted(mounted))

    async def stop(self, deadline: Deadline) -> None:
        """Release what is over already, and leave the rest to the next agent."""
        over = [
            watch
            for job, watch in self._watches.items()
            if job.caller is None or not is_running(job.caller)
        ]
        if over:
            await asyncio.wait(over, timeout=deadline.remaining())
        await cancel_all(*self._watches.values())

    async def allocated(self, event: JobAllocated) -> float | None:
        """Mount all images of a job; the seconds it took, or None if the job is over already."""
        started = time.monotonic()
        if event.system != self._system:
            raise InvalidInputError(
                f"job {event.job_id} wants images of system '{event.system}', and this node "
                f"belongs to '{self._system}': see agent.system"
            )
        if self._is_over(event):
            log.info("late_allocation_ignored", job=event.job_id)
            return None
        deadline = Deadline.after(self._stage_timeout)
        job = self._open(event.job_id, SITE, announced_at=event.time)
        async with self._kept(job):
            results = await asyncio.gather(
                *(self._hold(job, image, SITE, deadline) for image in event.images),
                return_exceptions=True,
            )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, JobEndedError):
                raise failure
        if job.ended:
            return None
        return time.monotonic() - started

    async def released(self, event: JobReleased) -> None:
        job = self._jobs.get(event.job_id)
        if job is not None and job.announced_at is not None and event.time < job.announced_at:
            log.info("late_release_ignored", job=event.job_id)  # the id is in use anew
            return
        self._remember(event.job_id, event.time)
        if job is not None:
            await self._close(job)

    async def mount(
        self, request: MountRequest, user: User | None, caller: Caller | None = None
    ) -> MountView:
        """Mount one image for a job of `user`; SITE for root and the agent's own user.

        With a caller the job is new, and ends with that process. In the scheduler's jobs, too, a
        user gets only what is theirs: whose job it is this node is not told.
        """
        uid = SITE if user is SITE else user.uid
        deadline = Deadline.after(request.wait)
        if user is not SITE:
            await self._holds.require_readable(request.image_id, user, deadline)
        image = NodeImage(
            image_id=request.image_id, content_digest=request.content_digest, size=request.size
        )
        job = self._open(request.job_id, uid, caller=caller)
        view = await self._hold(job, image, uid, deadline)
        if user is not SITE:
            await self._holds.admit(request.image_id, user, deadline)
        return view

    async def release(self, job_id: JobId, uid: int | None) -> None:
        """End a job. Safe to repeat."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        if uid is not SITE and uid != job.owner:
            raise ForbiddenError(f"job {job_id} is not yours to release")
        if job.announced_at is not None:
            self._remember(job_id, job.announced_at)
        await self._close(job)

    def _open(
        self,
        job_id: JobId,
        uid: int | None,
        *,
        announced_at: datetime | None = None,
        caller: Caller | None = None,
    ) -> _Job:
        job = self._jobs.get(job_id)
        if job is None:
            mine = sum(job.owner == uid for job in self._jobs.values())
            if uid is not SITE and mine >= MAX_JOBS_PER_USER:
                raise TooManyJobsError(
                    f"you hold {mine} jobs on this node: release those that have ended"
                )
            job = self._jobs[job_id] = _Job(job_id, uid, caller=caller)
            self._watch(job)
        elif caller not in (None, job.caller):
            raise JobNotTiedError(
                f"job {job_id} is there already and does not end with your process: choose "
                "another id"
            )
        elif uid is SITE and job.owner is not SITE:
            # Whoever took the scheduler's id for himself has no say any more: what he holds stays
            # until the job ends, for it may be in use by a rank that came before the scheduler.
            job.owner = SITE
            self._untie(job)
        elif job.owner not in (SITE, uid):
            raise ForbiddenError(f"job {job_id} belongs to somebody else: choose another id")
        if announced_at is not None:
            job.announced_at = max(announced_at, job.announced_at or announced_at)
            self._untie(job)  # the scheduler's: it ends when the scheduler says so
        return job

    def _watch(self, job: _Job) -> None:
        if job.caller is not None:
            watch = asyncio.create_task(self._end_with(job, job.caller), name=f"watch-{job.job_id}")
            self._watches[job] = watch
            watch.add_done_callback(lambda _: self._watches.pop(job, None))

    def _untie(self, job: _Job) -> None:
        job.caller = None
        self._unwatch(job)

    def _unwatch(self, job: _Job) -> None:
        watch = self._watches.get(job)
        if watch is not None and watch is not asyncio.current_task():
            watch.cancel()

    async def _end_with(self, job: _Job, caller: Caller) -> None:
        await ended(caller)
        log.info("caller_ended", job=job.job_id, pid=caller.pid)
        try:
            await self._close(job)
        except DrayError as exc:
            log.warning("job_not_released", job=job.job_id, code=exc.code, error=exc.message)

    async def _hold(
        self, job: _Job, image: NodeImage, uid: int | None, deadline: Deadline
    ) -> MountView:
        _require_running(job)
        async with self._kept(job):
            # The site's events are bounded, and users must not use up its room.
            full = uid is not SITE and len(job.wanted) >= MAX_IMAGES_PER_JOB
            if full and image.image_id not in job.wanted:
                raise InvalidInputError(
                    f"job {job.job_id} asks for more than {MAX_IMAGES_PER_JOB} images on one node"
                )
            await self._want(job, image.image_id)
            try:
                view = await self._holds.acquire(image, job, deadline)
            except BaseException:
                if image.image_id not in job.held:
                    job.wanted.discard(image.image_id)
                raise
            job.held.add(image.image_id)
            if not job.ended:
                # Once more: another request for it may have failed meanwhile.
                await self._want(job, image.image_id)
            if job.ended:
                await self._holds.release([image.image_id], job, deadline)
            _require_running(job)
            return view

    @asynccontextmanager
    async def _kept(self, job: _Job) -> AsyncIterator[None]:
        """While a request is under way the job stays, even if it holds nothing yet."""
        job.waiting += 1
        try:
            yield
        finally:
            job.waiting -= 1
            if not job.waiting and not job.held and not job.ended:
                await self._close(job)  # nothing came of it

    async def _want(self, job: _Job, image_id: ImageId) -> None:
        job.wanted.add(image_id)
        await self._save(job)

    async def _save(self, job: _Job) -> None:
        record = job.record()
        if record != job.saved:
            await self._files.save(record)
            job.saved = record

    async def _close(self, job: _Job) -> None:
        job.ended = True
        self._unwatch(job)
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id]
        # First the file: an agent that dies now unmounts when it comes back.
        await self._files.remove(job.job_id)
        await self._holds.release(tuple(job.held), job, Deadline.after(_RELEASE_SECONDS))

    def _is_over(self, event: JobAllocated) -> bool:
        released_at = self._released.get(event.job_id)
        return released_at is not None and event.time <= released_at

    def _remember(self, job_id: JobId, at: datetime) -> None:
        self._released[job_id] = max(at, self._released.pop(job_id, at))
        if len(self._released) > REMEMBERED_RELEASES:
            self._released.popitem(last=False)


def _require_running(job: _Job) -> None:
    if job.ended:
        raise JobEndedError(f"job {job.job_id} was released while its image was mounted")
