"""The catalog's documents about jobs and nodes."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from shared.catalog.record import Failure, Moment, Record
from shared.events import NodeCapacity, NodeImage, TraceParent, Uid
from shared.hostlist import fold
from shared.models import Bytes, ImageId, Instant, JobId, NodeName, SystemName


def _hostlist(nodes: object) -> object:
    """Earlier versions stored the names."""
    return fold(map(str, nodes)) if isinstance(nodes, list | tuple) else nodes


class StagingState(StrEnum):
    """Where one node is with one job's images."""

    PENDING = "PENDING"
    STAGED = "STAGED"
    IN_PLACE = "IN_PLACE"
    """It has them, straight from the shared directory: a copy was late."""
    FAILED = "FAILED"
    LOST = "LOST"
    """Its agent is not heard any more."""
    RELEASED = "RELEASED"
    """It had them, until the job ended."""

    @property
    def mounted(self) -> bool:
        return self in {StagingState.STAGED, StagingState.IN_PLACE}


class JobRecord(Record):
    """One job that the scheduler announced; without nodes, a reservation that holds its images."""

    collection = "jobs"
    indexes = (
        ("system",),
        ("announced_at",),
        ("system", "announced_at"),
        ("uid", "announced_at"),
        # Few run, of very many that are kept, and those are looked for all the time.
        ("released_at", "announced_at"),
        ("system", "released_at", "announced_at", "node_count"),
        ("uid", "released_at", "announced_at"),
    )

    job_id: JobId
    system: SystemName
    requested: tuple[str, ...]
    """The images as the scheduler named them; a tag among them may have moved since."""
    also_named: dict[str, ImageId] = Field(default_factory=dict)
    """By what other names its reservation had the same images."""
    images: tuple[NodeImage, ...]
    nodes: Annotated[str, BeforeValidator(_hostlist)]
    """As a hostlist: the record of ten thousand nodes is as small as that of ten."""
    node_count: int = 0
    announced_by: str
    uid: Uid | None = None
    """Whose job it is, where the scheduler says so."""
    announced_at: Moment
    trace: TraceParent = None
    """Of the announcement: what nodes are told of it, then or later, belongs to that."""
    reserved_at: Instant | None = None
    """When it was announced first, without nodes."""
    reserved_until: Instant | None = None
    """Of a reservation: so long it waits for nodes."""
    released_at: Instant | None = None
    answered_at: Instant | None = None
    """When all of its nodes had answered, for better or worse."""
    first_rank_at: Instant | None = None
    """When the first process of the job went into an image, as far as nodes have told."""
    told: bool = False
    """All nodes know of its latest change."""

    @property
    def reservation(self) -> bool:
        return not self.nodes


class StagingRecord(Record):
    """One node of one job; a document of its own, so that ten thousand nodes never contend.

    While it is PENDING, `due_at` says until when the agent may take; once released, how long it
    is kept.
    """

    collection = "stagings"
    indexes = (
        ("job_id", "state", "announced_at"),
        ("node", "released"),
        ("released", "system", "state", "job_id"),
    )

    job_id: JobId
    system: SystemName | None = None
    """The job's; None: an earlier version has written this."""
    node: NodeName
    announced_at: Moment
    """The announcement that it belongs to: schedulers use job ids again."""
    allocation: str | None = None
    """The id of the event that told the node; what the node answers names it as its cause."""
    released: bool = False
    state: StagingState
    before_lost: StagingState | None = None
    failure: Failure | None = None
    seconds: float | None = None
    answered_at: Instant | None = None
    """When it said how it went; None also where an earlier version heard it."""


class NodeRecord(Record):
    """One node's agent, as it last described itself; `due_at`: when it is lost, or forgotten."""

    collection = "nodes"
    indexes = (("system",), ("system", "lost"))

    node: NodeName
    system: SystemName
    kernel: str
    mounter: str
    codecs: tuple[str, ...]
    mounts: Bytes
    seen_at: Instant
    capacity: NodeCapacity | None = None
    start_id: str | None = None
    """Of the agent that spoke last."""
    lost: bool = False
    """It was not heard for too long."""
    untold: bool = False
    """There are jobs that it must be told of, as soon as it is heard."""


def staging_key(job_id: str, node: str) -> str:
    return f"{job_id}/{node}"
