"""Any event, to and from the bytes that travel."""

from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from shared.errors import InvalidInputError
from shared.events.base import MAX_EVENT_BYTES, Event
from shared.events.images import (
    ImageExpired,
    ImageExpireRequested,
    ImagePlaced,
    PlacementRequested,
    ReadersChanged,
    RemovalDecided,
    RemovalProposed,
)
from shared.events.inventory import (
    ImageLost,
    InventoryExpected,
    InventoryFound,
    InventoryRequested,
    InventoryUnknown,
)
from shared.events.logins import LoginChecked, LoginRequested
from shared.events.nodes import JobAllocated, JobReleased, NodeFailed, NodeHeartbeat, NodeStaged
from shared.events.pulls import (
    ImageChanged,
    ImageConverted,
    ImageUnchanged,
    PullFailed,
    PullProgressed,
    PullRequested,
    RefreshRequested,
)
from shared.events.storage import StorageReported

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
    | ReadersChanged
    | ImageExpireRequested
    | RemovalProposed
    | RemovalDecided
    | ImageExpired
    | ImageLost
    | InventoryRequested
    | InventoryExpected
    | InventoryFound
    | InventoryUnknown
    | LoginRequested
    | LoginChecked
    | JobAllocated
    | JobReleased
    | NodeStaged
    | NodeFailed
    | NodeHeartbeat
    | StorageReported,
    Field(discriminator="type"),
]

_ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


class MalformedEventError(InvalidInputError):
    """A message on the bus that no version of us wrote; it goes to the dead-letter queue."""

    code = "malformed_event"


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
