"""Jobs that the scheduler announces, and the nodes."""

from typing import Annotated

from pydantic import Field

from shared.catalog.records import Failure, StagingState
from shared.events import NodeCapacity, Uid
from shared.hostlist import MOST_CHARACTERS
from shared.models import Bytes, ImageId, Instant, JobId, NodeName, Strict, SystemName, Tolerant


class JobRequest(Strict):
    """POST /jobs: a job, its nodes, and its images by id or reference.

    Without nodes it is a reservation: the job waits for nodes, and its images must stay meanwhile.
    """

    job_id: JobId
    system: SystemName | None = None
    images: Annotated[tuple[str, ...], Field(min_length=1, max_length=32)]
    nodes: (
        Annotated[tuple[NodeName, ...], Field(max_length=100_000)]
        | Annotated[str, Field(max_length=MOST_CHARACTERS)]
    ) = ()
    """Names, or one hostlist as Slurm writes it: `nid[001-128,200],login1`."""
    uid: Uid | None = None
    """Whose job it is: who may see it, and whose private images it may use."""


class StagingView(Tolerant):
    """One node of a job."""

    node: NodeName
    state: StagingState
    failure: Failure | None
    seconds: float | None


class JobSummary(Tolerant):
    """One announced job, and how many of its nodes are where."""

    job_id: JobId
    system: SystemName
    images: tuple[ImageId, ...]
    hostlist: str
    """Of its nodes; where very many of them have nothing in common, cut off with an ellipsis."""
    announced_by: str
    uid: Uid | None
    """Whose it is, where the scheduler says so."""
    announced_at: Instant
    reserved_until: Instant | None
    """Of a job that has no nodes yet: so long its images are held."""
    released_at: Instant | None
    node_count: int
    counts: dict[StagingState, int]


class JobView(JobSummary):
    """GET /jobs/{id}: a summary, and some of the nodes.

    These are the first that failed, then the first that are lost, then those that nothing was
    heard of yet; with `?nodes=all`, all of them by name, and `next` is the `after` of what follows
    (None: nothing).
    """

    nodes: tuple[StagingView, ...]
    next: str | None = None


class JobPage(Tolerant):
    """GET /jobs, the newest first. `next` is the `after` of the next page; None: this was the last.

    A page may be short of its limit, where its jobs have very many nodes.
    """

    items: tuple[JobSummary, ...]
    next: str | None


class NodeView(Tolerant):
    """One node's agent, as it last described itself."""

    node: NodeName
    system: SystemName
    kernel: str
    mounter: str
    codecs: tuple[str, ...]
    mounts: Bytes
    seen_at: Instant
    lost: bool = False
    """It was not heard for some heartbeats."""
    capacity: NodeCapacity | None = None


class NodesView(Tolerant):
    """GET /nodes."""

    items: tuple[NodeView, ...]
    next: str | None = None
    """`after` of the next page; null: this was the last."""
