"""Jobs: what the scheduler announces, carried to the agents of the job's nodes and back.

A request only records what the scheduler said; telling the nodes is the fan-out's. A job that is
announced before it has nodes is a reservation: it holds its images until it gets nodes, ends, or
nobody follows it for too long. Whatever the scheduler says again changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from services.gateway.auth.identity import Principal
from services.gateway.images import Images, is_image_id
from services.gateway.jobs.fan_out import FAN_OUT_SECONDS, FanOut
from services.gateway.pulls import Pulls
from shared import tracing
from shared.api import JobRequest
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import ImageRecord, JobRecord
from shared.deadline import Deadline
from shared.errors import ConflictError, NotFoundError
from shared.events import NodeImage
from shared.hostlist import expand, fold
from shared.logging import get_logger
from shared.models import utcnow
from shared.settings.jobs import JobSettings

log = get_logger(__name__)

JobListener = Callable[[Principal, Sequence[ImageRecord]], None]
"""Told of each job that was announced: whose it is, and its images."""

JobUsers = Callable[[int], Awaitable[Principal]]
"""A user id's name and groups, without what the user may do as an operator."""
MOST_NAMES: Final = 128
_LATER: Final = timedelta(microseconds=1)
_NOBODY: Final = Principal("nobody", frozenset(), "nobody")


class JobStillEndingError(ConflictError):
    """The id of a job whose nodes are still being told of its end is announced again."""

    code = "job_still_ending"


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
        rules: JobSettings,
        timeout: float,
    ) -> None:
        self._catalog = catalog
        self._images = images
        self._pulls = pulls
        self._fan_out = fan_out
        self._note = note
        self._users = users
        self._rules = rules
        self._timeout = timeout

    async def announce(self, request: JobRequest, principal: Principal) -> JobRecord:
        """Record a job and wake its nodes. Announcing it again changes nothing."""
        system = self._pulls.system(request.system)
        before = await self._catalog.jobs.get(request.job_id)
        nodes, count = await asyncio.to_thread(_nodes, request.nodes)
        held = _held(before, system, request.uid)
        runs_as = await self._user_of(request, principal)
        # What the job has already is neither looked up again nor, by a tag that moved, replaced.
        records = {
            name: await self._image(runs_as, system, name)
            for name in dict.fromkeys(request.images)
            if name not in held
        }
        chosen = held | {name: _node_image(record) for name, record in records.items()}
        kept = {chosen[name].image_id for name in request.images}
        now = _now_after(before)
        reserved = None if nodes else now + timedelta(days=self._rules.reservation_days)
        wanted = JobRecord(
            key=request.job_id,
            job_id=request.job_id,
            system=system,
            requested=request.images,
            also_named={
                name: image.image_id
                for name, image in [*held.items()][-MOST_NAMES:]
                if image.image_id in kept and not is_image_id(name)
            },
            images=tuple(chosen[name] for name in request.images),
            nodes=nodes,
            node_count=count,
            announced_by=principal.name,
            uid=request.uid,
            announced_at=now,
            trace=tracing.current(),
            reserved_at=None if nodes else now,
            reserved_until=reserved,
            told=not nodes,
            due_at=reserved or now + timedelta(seconds=FAN_OUT_SECONDS),
        )
        store = partial(self._announced, wanted=wanted, seen=before)
        record = await self._catalog.jobs.change(request.job_id, store, self._deadline())
        if record is None or not _says(record, wanted):
            raise ConflictError(
                f"job {request.job_id} is already announced with other images or nodes, or for "
                "another user; release it first"
            )
        if records and record.announced_at == wanted.announced_at:  # not told of before
            await self._check_images(record, frozenset(records))
            self._note(runs_as, tuple(records.values()))
        self._fan_out.start(record)
        return record

    def _announced(
        self, found: JobRecord | None, *, wanted: JobRecord, seen: JobRecord | None
    ) -> Change[JobRecord] | None:
        open_then = seen is not None and seen.released_at is None
        open_now = found is not None and found.released_at is None
        if seen and open_then and not (found and open_now and _same(found, seen)):
            # What it held then may be gone.
            raise ConflictError(
                f"job {wanted.job_id} has ended at this very moment; announce it again"
            )
        if found is None:
            return Change(wanted)
        anew = wanted.but(version=found.version)
        if found.released_at is not None:
            if not found.told:
                self._fan_out.start(found)
                raise JobStillEndingError(
                    f"the nodes of the last job {wanted.job_id} are still being told of its end; "
                    "announce it again in a moment"
                )
            # The scheduler has come round to this id again.
            return Change(anew)
        if not found.reservation:
            return None
        if wanted.reservation and _says(found, wanted):
            # Somebody still cares: its time begins again.
            return Change(found.but(reserved_until=wanted.reserved_until, due_at=wanted.due_at))
        return Change(anew.but(reserved_at=found.reserved_at or found.announced_at))

    async def _check_images(self, job: JobRecord, names: frozenset[str]) -> None:
        """Once more: from now on the job keeps its images, but they may just have expired."""
        for name, image in zip(job.requested, job.images, strict=True):
            if name not in names:
                continue
            where = {"image_id": image.image_id, "system": job.system}
            if not await self._catalog.images.find(where, limit=1):
                await self.release(job.job_id)
                raise ConflictError(
                    f"image {image.image_id} has expired at this very moment; pull it, then "
                    f"announce job {job.job_id} again"
                )

    async def release(self, job_id: str) -> JobRecord:
        """The job has ended: its nodes give the mounts back."""
        record = await self._catalog.jobs.change(job_id, self._released, self._deadline())
        if record is None:
            raise NotFoundError(f"there is no job {job_id}")
        self._fan_out.start(record)
        return record

    def _released(self, found: JobRecord | None) -> Change[JobRecord] | None:
        if found is None or found.released_at is not None:
            return None
        now = max(utcnow(), found.announced_at)  # another gateway's clock may be ahead
        if found.reservation:  # there is nobody to tell
            return Change(found.but(released_at=now, due_at=now + self._kept))
        due = now + timedelta(seconds=FAN_OUT_SECONDS)
        return Change(found.but(released_at=now, due_at=due, told=False))

    async def overdue(self, limit: int) -> int:
        """Whose nodes are not told yet, who waited for nodes too long, and who ended long ago."""
        late = await self._catalog.jobs.due(utcnow(), limit)
        old: dict[str, int] = {}
        for job in late:
            if not job.told:
                self._fan_out.start(job)
            elif job.released_at is not None:
                old[job.key] = job.version
            elif job.reservation:
                log.info("reservation_ended", job=job.job_id)
                await self._catalog.jobs.change(job.key, self._abandoned, self._deadline())
        await self._catalog.jobs.remove_all(old, self._deadline())
        return 0  # they run on behind; asking at once for more would find the same ones

    def _abandoned(self, found: JobRecord | None) -> Change[JobRecord] | None:
        until = None if found is None else found.reserved_until
        if until is None or until > utcnow():
            return None  # it was said again, or has got its nodes
        return self._released(found)

    @property
    def _kept(self) -> timedelta:
        return timedelta(days=self._rules.keep_days)

    async def _user_of(self, request: JobRequest, principal: Principal) -> Principal:
        """As whom a job runs: whoever may announce it may not lend it his eyes."""
        uid = principal.uid if request.uid is None else request.uid
        return _NOBODY if uid is None else await self._users(uid)

    async def _image(self, user: Principal, system: str, name: str) -> ImageRecord:
        if is_image_id(name):
            return await self._images.by_id(user, system, name)
        return await self._images.lookup(user, self._pulls.target(system, "docker", name))

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout)


def _nodes(given: tuple[str, ...] | str) -> tuple[str, int]:
    """As a hostlist, and how many they are."""
    if not given:
        return "", 0
    names = expand(given) if isinstance(given, str) else tuple(dict.fromkeys(given))
    return fold(names), len(names)


def _now_after(before: JobRecord | None) -> datetime:
    """Nodes tell announcements of one id apart by their times, and gateways' clocks differ."""
    if before is None:
        return utcnow()
    return max(utcnow(), (before.released_at or before.announced_at) + _LATER)


def _held(before: JobRecord | None, system: str, uid: int | None) -> dict[str, NodeImage]:
    """What a job that has not ended holds, by the names that it was asked for, and by id."""
    if before is None or before.released_at is not None:
        return {}
    if (before.system, before.uid) != (system, uid):
        return {}
    by_id = {image.image_id: image for image in before.images}
    also = {name: by_id[image_id] for name, image_id in before.also_named.items()}
    return by_id | also | dict(zip(before.requested, before.images, strict=True))


def _node_image(record: ImageRecord) -> NodeImage:
    current = record.current
    assert current is not None
    return NodeImage(
        image_id=current.image_id, content_digest=current.content_digest, size=current.size
    )


def _same(job: JobRecord, seen: JobRecord) -> bool:
    """Whether it is that announcement still, or one that followed from it."""
    return job.announced_at == seen.announced_at or (seen.reservation and job.images == seen.images)


def _says(job: JobRecord, wanted: JobRecord) -> bool:
    """Whether a job is as it is wanted. Without nodes: it may have got them meanwhile."""
    same = (job.system, job.images) == (wanted.system, wanted.images)
    return same and (wanted.reservation or (job.nodes, job.uid) == (wanted.nodes, wanted.uid))
