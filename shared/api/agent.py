"""The local socket of a node's agent."""

from typing import Annotated, Literal

from pydantic import Field

from shared.api.inside import DeviceVariables, InsideView, Modules, Volumes
from shared.events import NodeCache, NodeImage, Uid
from shared.models import (
    Bytes,
    ImageId,
    Instant,
    JobId,
    NodeName,
    Sha256,
    Strict,
    SystemName,
    Tolerant,
)


class MountRequest(Strict):
    """POST /v1/mounts on an agent's local socket: have this image mounted for this job."""

    job_id: JobId
    image_id: ImageId
    content_digest: Sha256
    size: Bytes
    wait: Annotated[float, Field(gt=0, le=3600)] = 60.0
    until_caller_exits: bool = False
    """A new job, which ends with the process that asks, or what that becomes by exec."""


class PrepareRequest(Strict):
    """POST /v1/jobs/{job_id}/prepare, by a prolog: have the job's images mounted within `wait`.

    Without images: those that the scheduler's announcement named; it is waited for as well. The
    answer comes within the time whatever happens, so that a prolog never drains its node.
    """

    images: Annotated[tuple[NodeImage, ...], Field(max_length=32)] = ()
    uid: Uid | None = None
    """Whose job it is: who is let to images that are private. None: nobody but the site."""
    gid: Uid | None = None
    """Of users whom this node does not know by itself."""
    volumes: Volumes = ()
    """As the user writes them; with these and the modules each image is put together."""
    modules: Modules = ()
    devices: DeviceVariables = Field(default_factory=dict)
    """What the scheduler says of the job's devices here; its user has no say in that."""
    wait: Annotated[float, Field(gt=0, le=3600)] = 60.0


class MountView(Tolerant):
    """Where an image is on this node. `how` is loop, squashfuse or unpack."""

    image_id: ImageId
    path: str
    how: Literal["loop", "squashfuse", "unpack"]
    seconds: float
    from_cache: bool = False
    """Whether it is the copy on this node; else it is read from the shared directory."""


class PreparedView(Tolerant):
    """What became of it: all images mounted, or the reason why not, in words for the user."""

    state: Literal["ready", "failed"]
    mounts: tuple[MountView, ...] = ()
    images: tuple[NodeImage, ...] = ()
    """What was asked for, or announced; nothing where another agent than this one heard of it."""
    insides: tuple[InsideView, ...] = ()
    """Of each image, where the agent is root and knows whose job it is."""
    message: str = ""


class ProgramView(Tolerant):
    """GET /v1/images/{image_id}, for whoever may use it: how it wants to be run."""

    image_id: ImageId
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    workdir: str


class CachedView(Tolerant):
    """One copy in the cache of this node. Not `sound`: to be read in full before it is used."""

    image_id: ImageId
    size: Bytes
    in_use: bool
    pinned: bool
    sound: bool
    used_at: Instant


class CacheView(NodeCache):
    """The cache of this node, and to those who may see all images, what is in it."""

    copies: tuple[CachedView, ...] = ()
    """The one that was used last comes first."""


class PinRequest(Strict):
    """PUT /v1/cache/{image_id}: copy this image, and keep it; DELETE lets it go in its turn."""

    content_digest: Sha256
    size: Bytes
    wait: Annotated[float, Field(gt=0, le=3600)] = 600.0


class AgentStatus(Tolerant):
    """GET /v1/status on an agent's local socket."""

    node: NodeName
    system: SystemName
    bus_connected: bool
    mounter: str
    mounts: tuple[MountView, ...]
    jobs: dict[str, tuple[ImageId, ...]]
    cache: CacheView | None = None
