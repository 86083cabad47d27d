"""What a prolog asks for: a job's images, mounted within its time, or why they are not.

The answer comes whatever happens, and before the time is over: a prolog that hangs or fails drains
its node, and an image that is missing is the trouble of one job.
"""

import os
import pwd
from collections.abc import Sequence
from typing import Final

from services.node_agent.inside.furnishing import Furnishing, Wants
from services.node_agent.jobs import Jobs
from services.node_agent.readers import User
from services.node_agent.threads import DaemonThreads
from shared.api import InsideView, MountView, PreparedView, PrepareRequest
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError, DrayError
from shared.events import NodeImage
from shared.logging import get_logger
from shared.models import JobId

log = get_logger(__name__)

_THREADS: Final = 4
_LONGEST_MARGIN: Final = 1.0
_MARGIN: Final = 0.1
"""Of the caller's time, to give the answer in."""


class Preparing:
    """Prologs of this node."""

    def __init__(self, jobs: Jobs, furnishing: Furnishing | None) -> None:
        """Without `furnishing`, on an agent that is not root, there are mounts and no more."""
        self._jobs = jobs
        self._furnishing = furnishing
        self._threads = DaemonThreads(_THREADS, "accounts")

    async def prepare(self, job_id: JobId, request: PrepareRequest) -> PreparedView:
        """Safe to repeat."""
        margin = min(_LONGEST_MARGIN, _MARGIN * request.wait)
        deadline = Deadline.after(request.wait - margin)
        try:
            user = await self._user(request, deadline)
            mounts = await self._jobs.prepare(
                job_id, request.images, user, deadline, devices=request.devices
            )
            insides = await self._insides(job_id, mounts, user, request, deadline)
        except DrayError as exc:
            log.warning("job_not_prepared", job=job_id, code=exc.code, error=exc.message)
            return PreparedView(state="failed", message=_explained(exc, request.images))
        images = request.images or self._jobs.announced_images(job_id)
        return PreparedView(state="ready", mounts=mounts, images=images, insides=insides)

    async def _insides(
        self,
        job_id: JobId,
        mounts: Sequence[MountView],
        user: User | None,
        request: PrepareRequest,
        deadline: Deadline,
    ) -> tuple[InsideView, ...]:
        if self._furnishing is None or user is None:
            return ()
        wants = Wants(request.volumes, request.modules, request.devices)
        views = []
        for image_id in (mount.image_id for mount in mounts):
            try:
                path = await self._furnishing.furnish(
                    job_id, image_id, user, wants, deadline, as_default=True
                )
            except DrayError as exc:
                if wants.volumes or wants.modules:
                    raise
                # Nothing was asked of it: the job has its image, and can enter in another way.
                log.warning("no_inside", job=job_id, image=image_id, error=exc.message)
            else:
                views.append(InsideView(image_id=image_id, path=str(path)))
        return tuple(views)

    async def _user(self, request: PrepareRequest, deadline: Deadline) -> User | None:
        if request.uid is None:
            return None
        async with deadline.bound(f"looking up the groups of user {request.uid}"):
            return await self._threads.run(user_of, request.uid, request.gid)


def user_of(uid: int, gid: int | None = None) -> User:
    """With the groups that this node knows; somebody whom it does not know has one. Blocks."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, frozenset() if gid is None else frozenset({gid}))
    return User(uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def _explained(exc: DrayError, images: Sequence[NodeImage]) -> str:
    if not isinstance(exc, DeadlineExceededError):
        return exc.message
    if images:
        return f"{exc.message}: is the shared file system of the images slow, or gone?"
    return f"{exc.message}: is this node's agent connected, and was the job announced to it?"
