"""Between the gateway and the nodes' agents: jobs, stagings, heartbeats."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.events.base import Event, NeverTraced, ShortText
from shared.models import Bytes, ImageId, Instant, JobId, NodeName, Sha256, SystemName, Tolerant

LONGEST_SECONDS: Final = 31_536_000
"""Whatever a node measures: a year. Infinity could be stored nowhere."""


class NodeImage(Tolerant):
    """One image that a job wants on its nodes."""

    image_id: ImageId
    content_digest: Sha256
    size: Bytes


class NodeEvent(Event):
    """An event to one node's agent."""

    node: NodeName
    job_id: JobId

    @property
    def routing_key(self) -> str:
        return agent_key(self.node)


class JobAllocated(NodeEvent):
    """To an agent: this job will run here; have its images mounted."""

    type: Literal["job.allocated"] = "job.allocated"
    system: SystemName
    images: Annotated[tuple[NodeImage, ...], Field(max_length=32)]


class JobReleased(NodeEvent):
    """To an agent: the job has ended; give its mounts back."""

    type: Literal["job.released"] = "job.released"


class NodeStaged(Event):
    """From an agent: every image of the job is mounted on this node."""

    type: Literal["node.staged"] = "node.staged"
    node: NodeName
    job_id: JobId
    seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
    in_place: bool = False
    """Not as the agent's policy has it, but from the shared directory, since a copy was late."""


class NodeFailed(Event):
    """From an agent: the job's images could not be had on this node."""

    type: Literal["node.failed"] = "node.failed"
    node: NodeName
    job_id: JobId
    code: Annotated[str, Field(max_length=64)]
    message: ShortText


MOST_ENTERED: Final = 64


class JobEntered(Tolerant):
    """The first process of a job has gone into an image on a node."""

    job_id: JobId
    seconds_ago: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
    """Nodes' clocks may be wrong."""


class NodeCache(Tolerant):
    """An agent's cache of images."""

    policy: Annotated[str, Field(max_length=64)]
    max_bytes: Bytes
    used_bytes: Bytes
    images: Bytes


class NodeCapacity(Tolerant):
    """What a node has."""

    version: Annotated[str, Field(max_length=64)]
    """Of its agent."""
    cpus: Bytes
    memory_bytes: Bytes
    booted_at: Instant
    cache: NodeCache | None = None


class NodeHeartbeat(Event):
    """From an agent: this node is here, and this is what it can do."""

    type: Literal["node.heartbeat"] = "node.heartbeat"
    trace: NeverTraced = None
    """Nobody asked for it; and no node can have traces filled with its heartbeats."""
    node: NodeName
    system: SystemName
    kernel: Annotated[str, Field(max_length=256)]
    mounter: Annotated[str, Field(max_length=64)]
    codecs: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=16)]
    mounts: Bytes
    jobs: Annotated[tuple[JobId, ...], Field(max_length=1024)] = ()
    """The scheduler's jobs that it holds images for: one that has ended is told again."""
    capacity: NodeCapacity | None = None
    """None: from an agent of an earlier version."""
    entered: Annotated[tuple[JobEntered, ...], Field(max_length=MOST_ENTERED)] = ()
    """Of each job once, as far as the agent has noticed."""
    start_id: Annotated[str, Field(max_length=64)] | None = None
    """Another one after each start of the agent: what it was told before may be lost."""


def agent_key(node: str) -> str:
    """The routing key of one node's agent; its own prefix: no node name can meet an event's."""
    return f"agent.{node}"
