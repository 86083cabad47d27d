"""The jobs of this node: what each holds, who may end it, and what is stale.

Events arrive doubled, late and out of order, and the same job is asked for by the scheduler's
event, by its prolog and by each of its ranks. All of them meet here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from services.node_agent.callers import Caller, is_running
from services.node_agent.errors import (
    ForbiddenError,
    JobEndedError,
    JobNotTiedError,
    TooManyJobsError,
)
from services.node_agent.holds import Holds
from services.node_agent.job import SITE, Job, Released, Staged
from services.node_agent.readers import User
from services.node_agent.state import JobFiles
from services.node_agent.watches import Watches
from shared.api import MountRequest, MountView
from shared.deadline import Deadline
from shared.errors import InvalidInputError, NotFoundError
from shared.events import JobAllocated, JobReleased, NodeImage
from shared.logging import get_logger
from shared.models import ImageId, JobId, utcnow

log = get_logger(__name__)

MAX_IMAGES_PER_JOB: Final = 64
MAX_JOBS_PER_USER: Final = 1024
_RELEASE_SECONDS: Final = 60.0
OnEnd = Callable[[JobId], Awaitable[None]]


class Jobs:
    """All jobs on this node."""

    def __init__(
        self,
        holds: Holds,
        files: JobFiles,
        *,
        system: str,
        stage_timeout: float,
        on_end: OnEnd | None = None,
    ) -> None:
        """`on_end` takes away, before its images, what else a job has here."""
        self._holds = holds
        self._on_end = on_end
        self._files = files
        self._system = system
        self._stage_timeout = stage_timeout
        self._jobs: dict[JobId, Job] = {}
        self._released = Released()
        self._announcements = asyncio.Condition()
        self._watches = Watches(self._close)

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

    def is_the_sites(self, job_id: JobId) -> bool:
        """Whether the scheduler has it here; a user may have taken any other id."""
        job = self._jobs.get(job_id)
        return job is not None and job.owner is SITE

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
            job = Job.adopted(record, mounted)
            self._jobs[job.job_id] = job
            for image_id in mounted:
                self._holds.hold_adopted(image_id, job)
            self._watches.watch(job)
            log.info("job_adopted", job=job.job_id, images=sorted(mounted))

    async def stop(self, deadline: Deadline) -> None:
        """Release what is over already, and leave the rest to the next agent."""
        await self._watches.stop(deadline)

    async def allocated(self, event: JobAllocated) -> Staged | None:
        """Mount all images of a job; None if the job is over already."""
        started = time.monotonic()
        if event.system != self._system:
            raise InvalidInputError(
                f"job {event.job_id} wants images of system '{event.system}', and this node "
                f"belongs to '{self._system}': see agent.system"
            )
        if self._released.covers(event):
            log.info("late_allocation_ignored", job=event.job_id)
            return None
        deadline = Deadline.after(self._stage_timeout)
        job = self._open(event.job_id, SITE, announced_at=event.time)
        job.announced = {image.image_id: image for image in event.images}
        async with self._kept(job):
            async with self._announcements:
                self._announcements.notify_all()
            await self._hold_all(job, event.images, deadline)
        if job.ended:
            return None
        fell_back = any(self._holds.fell_back(image.image_id) for image in event.images)
        return Staged(time.monotonic() - started, fell_back)

    async def prepare(
        self,
        job_id: JobId,
        images: Sequence[NodeImage],
        user: User | None,
        deadline: Deadline,
        *,
        devices: Mapping[str, str],
    ) -> tuple[MountView, ...]:
        """Mount a job's images for the prolog of its node; `user` is let to those not for all.

        Without images: those of the scheduler's announcement, which is waited for.
        """
        job = self._open(job_id, SITE) if images else await self._announcement(job_id, deadline)
        job.prepared_at = utcnow()
        job.user, job.devices = None if user is None else user.uid, devices
        self._watches.untie(job)
        async with self._kept(job):
            wanted = images or tuple(job.announced.values())
            if user is not None:
                # Others may have had images of theirs mounted under this id before it was known.
                for image_id in {image.image_id for image in wanted} or set(job.held):
                    await self._holds.require_readable(image_id, user, deadline)
            views = await self._hold_all(job, wanted, deadline)
            job.require_running()
            # A job that an earlier agent was told of is known by what it holds.
            views = views or tuple(self._holds.view(image_id) for image_id in sorted(job.held))
            if user is not None:
                for view in views:
                    await self._holds.admit(view.image_id, user, deadline)
        return views

    def devices_of(self, job_id: JobId, image_id: ImageId, user: User | None) -> Mapping[str, str]:
        """What the scheduler said of the job's devices, for an image that it has here.

        An error where it has not, or where the user may ask for nothing of the job's.
        """
        job = self._jobs.get(job_id)
        if job is None or image_id not in job.held:
            raise NotFoundError(f"job {job_id} has no image {image_id} on this node")
        # Of a job that was only announced this node does not know the user.
        known = job.user is not None or job.owner is not SITE
        if user is not SITE and known and user.uid not in (job.owner, job.user):
            raise ForbiddenError(f"job {job_id} is not yours")
        return job.devices

    def announced_images(self, job_id: JobId) -> tuple[NodeImage, ...]:
        """What the scheduler's announcement named, if this agent has heard it."""
        job = self._jobs.get(job_id)
        return () if job is None else tuple(job.announced.values())

    async def _announcement(self, job_id: JobId, deadline: Deadline) -> Job:
        def told() -> Job | None:
            job = self._jobs.get(job_id)
            return None if job is None or job.announced_at is None else job

        waiting = deadline.bound(f"waiting for the announcement of job {job_id}")
        async with waiting, self._announcements:
            await self._announcements.wait_for(told)
        job = told()
        assert job is not None
        return job

    async def _hold_all(
        self, job: Job, images: Sequence[NodeImage], deadline: Deadline
    ) -> tuple[MountView, ...]:
        """All or an error, after all have been tried; a job that ends meanwhile is none."""
        results = await asyncio.gather(
            *(self._hold(job, image, SITE, deadline) for image in images),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, JobEndedError):
                raise result
        return tuple(result for result in results if not isinstance(result, BaseException))

    async def released(self, event: JobReleased) -> None:
        job = self._jobs.get(event.job_id)
        if job is not None and job.is_newer_than(event):
            log.info("late_release_ignored", job=event.job_id)
            return
        self._released.remember(event.job_id, event.time)
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
            self._released.remember(job_id, job.announced_at)
        await self._close(job)

    def _open(
        self,
        job_id: JobId,
        uid: int | None,
        *,
        announced_at: datetime | None = None,
        caller: Caller | None = None,
    ) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            mine = sum(job.owner == uid for job in self._jobs.values())
            if uid is not SITE and mine >= MAX_JOBS_PER_USER:
                raise TooManyJobsError(
                    f"you hold {mine} jobs on this node: release those that have ended"
                )
            job = self._jobs[job_id] = Job(job_id, uid, caller=caller)
            self._watches.watch(job)
        elif caller not in (None, job.caller):
            raise JobNotTiedError(
                f"job {job_id} is there already and does not end with your process: choose "
                "another id"
            )
        elif uid is SITE and job.owner is not SITE:
            # Whoever took the scheduler's id for himself has no say any more: what he holds stays
            # until the job ends, for it may be in use by a rank that came before the scheduler.
            job.owner = SITE
            self._watches.untie(job)
        elif job.owner not in (SITE, uid) or (job.user is not None and uid not in (SITE, job.user)):
            raise ForbiddenError(f"job {job_id} belongs to somebody else: choose another id")
        if announced_at is not None:
            job.announced_at = max(announced_at, job.announced_at or announced_at)
            self._watches.untie(job)  # the scheduler's: it ends when the scheduler says so
        return job

    async def _hold(
        self, job: Job, image: NodeImage, uid: int | None, deadline: Deadline
    ) -> MountView:
        job.require_running()
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
            job.require_running()
            return view

    @asynccontextmanager
    async def _kept(self, job: Job) -> AsyncIterator[None]:
        """While a request is under way the job stays, even if it holds nothing yet."""
        job.waiting += 1
        try:
            yield
        finally:
            job.waiting -= 1
            if not job.waiting and not job.held and not job.ended:
                await self._close(job)  # nothing came of it

    async def _want(self, job: Job, image_id: ImageId) -> None:
        job.wanted.add(image_id)
        await self._save(job)

    async def _save(self, job: Job) -> None:
        record = job.record()
        if record != job.saved:
            await self._files.save(record)
            job.saved = record

    async def _close(self, job: Job) -> None:
        job.ended = True
        self._watches.forget(job)
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id]
        # First the file: an agent that dies now unmounts when it comes back.
        await self._files.remove(job.job_id)
        if self._on_end is not None:
            await self._on_end(job.job_id)
        await self._holds.release(tuple(job.held), job, Deadline.after(_RELEASE_SECONDS))
