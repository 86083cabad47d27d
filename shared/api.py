"""REST v1 as models: what the gateway takes and gives under /api/v1.

A client needs only JSON; these are the contract's one definition, from which the gateway
validates requests and makes answers.
"""

from typing import Annotated, Literal

from pydantic import Field

from shared.catalog.records import Failure, ImageType, Progress, StagingState
from shared.image.planning.shares import LayerShare
from shared.image.recipe import PackOptions
from shared.models import (
    Bytes,
    Digest,
    ImageId,
    Instant,
    JobId,
    NodeName,
    Sha256,
    Strict,
    SystemName,
    Tolerant,
)
from shared.states import State

API = "/api/v1"


class PullRequest(Strict):
    """POST /pulls. Without a system the site's only one is meant.

    `force` checks and, where it is damaged, makes again what is placed, even if the registry has
    nothing new.
    """

    reference: Annotated[str, Field(min_length=1, max_length=512)]
    system: SystemName | None = None
    type: ImageType = "docker"
    force: bool = False


class ImageView(Tolerant):
    """A READY image."""

    id: ImageId
    system: SystemName
    type: ImageType
    reference: str
    manifest_digest: Digest
    config_digest: Digest
    """What Docker calls the image's id."""
    content_digest: Sha256
    size: Bytes
    inodes: Bytes
    layers: tuple[Digest, ...]
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str
    labels: dict[str, str]
    ready_at: Instant


class LayerView(LayerShare):
    """One layer of an image, and how many other images of the catalog have its pack too."""

    others: Bytes


class ImageDetail(ImageView):
    """GET /images/{system}/{type}/{reference}?sharing=true: what the image is made of.

    `shares` is empty for an image that an earlier version placed.
    """

    options: PackOptions
    shares: tuple[LayerView, ...]


class PullView(Tolerant):
    """One pull. `image` is what the reference stands for now, perhaps from an earlier pull."""

    id: str
    system: SystemName
    type: ImageType
    reference: str
    state: State
    attempt: int
    tries: int
    requested_at: Instant
    requested_by: str
    updated_at: Instant
    progress: Progress | None
    failure: Failure | None
    image: ImageView | None


class ImagePage(Tolerant):
    """GET /images. `next` is the `after` of the next page; None: this was the last."""

    items: tuple[ImageView, ...]
    next: str | None


class QueueView(Tolerant):
    """GET /queue: what is under way, and what failed last."""

    items: tuple[PullView, ...]


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


class DeadLetterView(Tolerant):
    """GET /admin/dead-letters: an event that no handler could digest."""

    id: str
    queue: str
    reason: str
    deliveries: int
    died_at: Instant | None
    body: str


class DeadLettersView(Tolerant):
    """GET /admin/dead-letters."""

    items: tuple[DeadLetterView, ...]


class Problem(Tolerant):
    """RFC 9457 problem details. `code` is ours and stable; `detail` says what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None


class MountRequest(Strict):
    """POST /v1/mounts on an agent's local socket: have this image mounted for this job."""

    job_id: JobId
    image_id: ImageId
    content_digest: Sha256
    size: Bytes
    wait: Annotated[float, Field(gt=0, le=3600)] = 60.0
    until_caller_exits: bool = False
    """A new job, which ends with the process that asks, or what that becomes by exec."""


class MountView(Tolerant):
    """Where an image is on this node. `how` is loop, squashfuse or unpack."""

    image_id: ImageId
    path: str
    how: Literal["loop", "squashfuse", "unpack"]
    seconds: float


class AgentStatus(Tolerant):
    """GET /v1/status on an agent's local socket."""

    node: NodeName
    system: SystemName
    bus_connected: bool
    mounter: str
    mounts: tuple[MountView, ...]
    jobs: dict[str, tuple[ImageId, ...]]
