"""The events: versioned pydantic models, and the routing key of each.

An event wakes somebody up; it is never the truth. Every consumer must bear it lost, doubled,
late or out of order, so each event about a pull carries the pull's key and attempt number, and
is checked against the catalog before anything changes.
"""

import uuid
from typing import Annotated, Literal, Self, TypedDict

from pydantic import Field, TypeAdapter, ValidationError

from shared.errors import DrayError, InvalidInputError
from shared.image.recipe import DeadShare, PackOptions, Recipe
from shared.models import (
    Bytes,
    Digest,
    ImageId,
    Instant,
    JobId,
    NodeName,
    Sha256,
    SystemName,
    Tolerant,
    utcnow,
)
from shared.states import State

MAX_EVENT_BYTES = 1 << 20
MAX_TEXT = 4096
ShortText = Annotated[str, Field(max_length=MAX_TEXT)]


def new_id() -> str:
    return uuid.uuid4().hex


class Event(Tolerant):
    """What every event has. `correlation_id` is the pull's or job's id, in every service."""

    v: Literal[1] = 1
    id: str = Field(default_factory=new_id, max_length=64)
    time: Instant = Field(default_factory=utcnow)
    correlation_id: Annotated[str, Field(max_length=160)]
    causation_id: Annotated[str, Field(max_length=64)] | None = None
    type: str

    @property
    def routing_key(self) -> str:
        return self.type


class PullContext(TypedDict):
    """What an event about a pull has in common with the event that caused it."""

    correlation_id: str
    causation_id: str | None
    key: str
    attempt: int


class PullEvent(Event):
    """An event about one attempt at one catalog record."""

    key: Annotated[str, Field(max_length=1024)]
    attempt: Annotated[int, Field(ge=1)]

    @property
    def context(self) -> PullContext:
        """For the events that this one causes: `PullFailed(**event.context, …)`."""
        return PullContext(
            correlation_id=self.correlation_id,
            causation_id=self.id,
            key=self.key,
            attempt=self.attempt,
        )


class PullRequested(PullEvent):
    """To a converter: make this image."""

    type: Literal["pull.requested"] = "pull.requested"
    reference: ShortText
    platform: ShortText
    options: PackOptions
    max_dead_share: DeadShare


class RefreshRequested(PullEvent):
    """To a converter: does this reference still point to what we have?"""

    type: Literal["refresh.requested"] = "refresh.requested"
    reference: ShortText
    platform: ShortText
    known_digest: Digest


class LayerProgress(Tolerant):
    """How far one layer is, in bytes of the compressed blob."""

    digest: Digest
    done: Bytes
    total: Bytes
    cached: bool = False


class PullProgressed(PullEvent):
    """From whoever works on a pull: still alive, and this far. Renews the pull's lease."""

    type: Literal["pull.progressed"] = "pull.progressed"
    stage: State
    done: Bytes = 0
    total: Bytes = 0
    rate: Annotated[float, Field(ge=0)] = 0.0
    layers: Annotated[tuple[LayerProgress, ...], Field(max_length=256)] = ()


class ImageUnchanged(PullEvent):
    """From a converter: the reference points to the digest that the catalog knows."""

    type: Literal["image.unchanged"] = "image.unchanged"
    reference_digest: Digest


class ImageChanged(PullEvent):
    """From a converter: the reference points elsewhere now."""

    type: Literal["image.changed"] = "image.changed"
    reference_digest: Digest


class ImageConverted(PullEvent):
    """From a converter: all packs are in the store, and this recipe makes the image of them."""

    type: Literal["image.converted"] = "image.converted"
    recipe: Recipe


class PlacementRequested(PullEvent):
    """To a system's distributor: weave this recipe into the system's image directory."""

    type: Literal["placement.requested"] = "placement.requested"
    system: SystemName
    recipe: Recipe

    @property
    def routing_key(self) -> str:
        return f"{self.type}.{self.system}"


class ImagePlaced(PullEvent):
    """From a distributor: the image stands under its final name, verified and durable."""

    type: Literal["image.placed"] = "image.placed"
    system: SystemName
    image_id: ImageId
    content_digest: Sha256
    size: Bytes


class PullFailed(PullEvent):
    """From whoever worked on a pull: it ended, and why."""

    type: Literal["pull.failed"] = "pull.failed"
    code: Annotated[str, Field(max_length=64)]
    message: ShortText
    retryable: bool = False

    @classmethod
    def because(cls, cause: PullEvent, error: DrayError) -> Self:
        return cls(
            **cause.context,
            code=error.code,
            message=error.message[:MAX_TEXT],
            retryable=error.retryable,
        )


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
    seconds: Annotated[float, Field(ge=0)]


class NodeFailed(Event):
    """From an agent: the job's images could not be had on this node."""

    type: Literal["node.failed"] = "node.failed"
    node: NodeName
    job_id: JobId
    code: Annotated[str, Field(max_length=64)]
    message: ShortText


class NodeHeartbeat(Event):
    """From an agent: this node is here, and this is what it can do."""

    type: Literal["node.heartbeat"] = "node.heartbeat"
    node: NodeName
    system: SystemName
    kernel: Annotated[str, Field(max_length=256)]
    mounter: Annotated[str, Field(max_length=64)]
    codecs: Annotated[tuple[str, ...], Field(max_length=16)]
    mounts: Bytes
    jobs: Annotated[tuple[JobId, ...], Field(max_length=1024)] = ()
    """The scheduler's jobs that it holds images for: one that has ended is told again."""


AnyEvent = Annotated[
    PullRequested
    | RefreshRequested
    | PullProgressed
    | ImageUnchanged
    | ImageChanged
    | ImageConverted
    | PlacementRequested
    | ImagePlaced
    | PullFailed
    | JobAllocated
    | JobReleased
    | NodeStaged
    | NodeFailed
    | NodeHeartbeat,
    Field(discriminator="type"),
]

_ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


class MalformedEventError(InvalidInputError):
    """A message on the bus that no version of us wrote; it goes to the dead-letter queue."""

    code = "malformed_event"


def agent_key(node: str) -> str:
    """The routing key of one node's agent; its own prefix: no node name can meet an event's."""
    return f"agent.{node}"


def encode_event(event: Event) -> bytes:
    return event.model_dump_json().encode()


def decode_event(body: bytes) -> AnyEvent:
    if len(body) > MAX_EVENT_BYTES:
        raise MalformedEventError(f"an event of {len(body)} bytes exceeds {MAX_EVENT_BYTES}")
    try:
        return _ADAPTER.validate_json(body)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "event"
        raise MalformedEventError(f"{where}: {problem['msg']}") from exc
