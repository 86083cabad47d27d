"""The events: versioned pydantic models, and the routing key of each.

An event wakes somebody up; it is never the truth. Every consumer must bear it lost, doubled,
late or out of order, so each event about a pull carries the pull's key and attempt number, and
is checked against the catalog before anything changes.
"""

from shared.events.base import (
    MAX_EVENT_BYTES,
    MAX_TEXT,
    Event,
    PullContext,
    PullEvent,
    ShortText,
    new_id,
)
from shared.events.codec import AnyEvent, MalformedEventError, decode_event, encode_event
from shared.events.images import (
    ImageExpired,
    ImageExpireRequested,
    ImagePlaced,
    PlacementRequested,
    Readers,
    ReadersChanged,
    RemovalDecided,
    RemovalProposed,
    SystemEvent,
    Uid,
)
from shared.events.logins import LoginChecked, LoginRequested
from shared.events.nodes import (
    JobAllocated,
    JobReleased,
    NodeEvent,
    NodeFailed,
    NodeHeartbeat,
    NodeImage,
    NodeStaged,
    agent_key,
)
from shared.events.pulls import (
    ImageChanged,
    ImageConverted,
    ImageUnchanged,
    LayerProgress,
    PullFailed,
    PullProgressed,
    PullRequested,
    RefreshRequested,
    Ticket,
)

__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_TEXT",
    "AnyEvent",
    "Event",
    "ImageChanged",
    "ImageConverted",
    "ImageExpireRequested",
    "ImageExpired",
    "ImagePlaced",
    "ImageUnchanged",
    "JobAllocated",
    "JobReleased",
    "LayerProgress",
    "LoginChecked",
    "LoginRequested",
    "MalformedEventError",
    "NodeEvent",
    "NodeFailed",
    "NodeHeartbeat",
    "NodeImage",
    "NodeStaged",
    "PlacementRequested",
    "PullContext",
    "PullEvent",
    "PullFailed",
    "PullProgressed",
    "PullRequested",
    "Readers",
    "ReadersChanged",
    "RefreshRequested",
    "RemovalDecided",
    "RemovalProposed",
    "ShortText",
    "SystemEvent",
    "Ticket",
    "Uid",
    "agent_key",
    "decode_event",
    "encode_event",
    "new_id",
]
