"""One job of this node, and the memory of those that have ended."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.node_agent.callers import Caller
from services.node_agent.errors import JobEndedError
from services.node_agent.state import JobRecord
from shared.events import JobAllocated, JobReleased, NodeImage
from shared.models import ImageId, JobId

SITE: Final = None
"""The owner of a job that the scheduler or the administrator made."""
REMEMBERED_RELEASES: Final = 4096


@dataclass(eq=False, slots=True)
class Job:
    """A job is the holder of its images. `wanted` is on disk before anything is mounted."""

    job_id: JobId
    owner: int | None
    announced_at: datetime | None = None
    prepared_at: datetime | None = None
    """When a prolog of this node asked for it."""
    user: int | None = None
    """Whose the prolog said it is."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """What the prolog said of those it has here."""
    caller: Caller | None = None
    announced: Mapping[ImageId, NodeImage] = field(default_factory=dict)
    """What the announcement names; it does not outlive the agent."""
    wanted: set[ImageId] = field(default_factory=set)
    held: set[ImageId] = field(default_factory=set)
    saved: JobRecord | None = None
    waiting: int = 0
    ended: bool = False

    @classmethod
    def adopted(cls, record: JobRecord, mounted: frozenset[ImageId]) -> "Job":
        job = cls(
            record.job_id,
            record.owner,
            record.announced_at,
            record.prepared_at,
            record.user,
            record.devices,
            record.caller,
        )
        job.wanted, job.held = set(mounted), set(mounted)
        return job

    def record(self) -> JobRecord:
        return JobRecord(
            job_id=self.job_id,
            owner=self.owner,
            announced_at=self.announced_at,
            prepared_at=self.prepared_at,
            user=self.user,
            devices=dict(self.devices),
            images=tuple(sorted(self.wanted)),
            caller=self.caller,
        )

    def require_running(self) -> None:
        if self.ended:
            raise JobEndedError(f"job {self.job_id} was released while its image was mounted")

    def is_newer_than(self, release: JobReleased) -> bool:
        """The scheduler uses ids again: then a release that comes late is that of the last job."""
        began = self.announced_at or self.prepared_at
        return began is not None and release.time < began


@dataclass(frozen=True, slots=True)
class Staged:
    """How an announced job got its images. `in_place`: one of them should have been a copy."""

    seconds: float
    in_place: bool


class Released:
    """When jobs were released, as far as it matters for events that come late."""

    def __init__(self) -> None:
        self._at: OrderedDict[JobId, datetime] = OrderedDict()

    def remember(self, job_id: JobId, at: datetime) -> None:
        self._at[job_id] = max(at, self._at.pop(job_id, at))
        if len(self._at) > REMEMBERED_RELEASES:
            self._at.popitem(last=False)

    def covers(self, event: JobAllocated) -> bool:
        released_at = self._at.get(event.job_id)
        return released_at is not None and event.time <= released_at
