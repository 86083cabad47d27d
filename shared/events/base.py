"""What every event has, and what all events about one attempt at a pull have."""

import uuid
from typing import Annotated, Literal, TypedDict

from pydantic import BeforeValidator, Field

from shared import tracing
from shared.models import Instant, Tolerant, utcnow

MAX_EVENT_BYTES = 1 << 20
MAX_TEXT = 4096
ShortText = Annotated[str, Field(max_length=MAX_TEXT)]


def new_id() -> str:
    return uuid.uuid4().hex


def _traceparent(text: object) -> object:
    """What is none is no reason to refuse an event."""
    return text if isinstance(text, str) and tracing.is_traceparent(text) else None


TraceParent = Annotated[str | None, BeforeValidator(_traceparent)]
NeverTraced = Annotated[str | None, BeforeValidator(lambda _: None)]


class Event(Tolerant):
    """What every event has. `correlation_id` is the pull's or job's id, in every service."""

    v: Literal[1] = 1
    id: str = Field(default_factory=new_id, max_length=64)
    time: Instant = Field(default_factory=utcnow)
    correlation_id: Annotated[str, Field(max_length=160)]
    causation_id: Annotated[str, Field(max_length=64)] | None = None
    trace: TraceParent = Field(default_factory=tracing.current)
    """What the event is part of, as W3C Trace Context writes it."""
    type: str

    @property
    def routing_key(self) -> str:
        return self.type


class PullContext(TypedDict):
    """What an event about a pull has in common with the event that caused it."""

    correlation_id: str
    causation_id: str | None
    trace: str | None
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
            trace=tracing.current() or self.trace,
            key=self.key,
            attempt=self.attempt,
        )
