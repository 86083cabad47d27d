"""The local socket of a node's agent."""

from typing import Annotated, Literal

from pydantic import Field

from shared.events import NodeImage, Uid
from shared.models import Bytes, ImageId, JobId, NodeName, Sha256, Strict, SystemName, Tolerant


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
    wait: Annotated[float, Field(gt=0, le=3600)] = 60.0


class MountView(Tolerant):
    """Where an image is on this node. `how` is loop, squashfuse or unpack."""

    image_id: ImageId
    path: str
    how: Literal["loop", "squashfuse", "unpack"]
    seconds: float


class PreparedView(Tolerant):
    """What became of it: all images mounted, or the reason why not, in words for the user."""

    state: Literal["ready", "failed"]
    mounts: tuple[MountView, ...] = ()
    message: str = ""


class AgentStatus(Tolerant):
    """GET /v1/status on an agent's local socket."""

    node: NodeName
    system: SystemName
    bus_connected: bool
    mounter: str
    mounts: tuple[MountView, ...]
    jobs: dict[str, tuple[ImageId, ...]]
