"""The local socket of a node's agent."""

from typing import Annotated, Literal

from pydantic import Field

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
