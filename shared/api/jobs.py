"""Jobs that the scheduler announces, and the nodes."""

from typing import Annotated

from pydantic import Field

from shared.catalog.records import Failure, StagingState
from shared.models import Bytes, ImageId, Instant, JobId, NodeName, Strict, SystemName, Tolerant


class JobRequest(Strict):
    """POST /jobs: the scheduler allocated these nodes; images by id or reference."""

    job_id: JobId
    system: SystemName | None = None
    images: Annotated[tuple[str, ...], Field(min_length=1, max_length=32)]
    nodes: Annotated[tuple[NodeName, ...], Field(min_length=1, max_length=100_000)]


class StagingView(Tolerant):
    """One node of a job."""

    node: NodeName
    state: StagingState
    failure: Failure | None
    seconds: float | None


class JobView(Tolerant):
    """One announced job and where its nodes are."""

    job_id: JobId
    system: SystemName
    images: tuple[ImageId, ...]
    announced_by: str
    announced_at: Instant
    released_at: Instant | None
    counts: dict[StagingState, int]
    nodes: tuple[StagingView, ...]


class NodeView(Tolerant):
    """One node's agent, as it last described itself."""

    node: NodeName
    system: SystemName
    kernel: str
    mounter: str
    codecs: tuple[str, ...]
    mounts: Bytes
    seen_at: Instant


class NodesView(Tolerant):
    """GET /nodes."""

    items: tuple[NodeView, ...]
