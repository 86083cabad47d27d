"""What every adapter does alike: packing events, pacing redeliveries, naming dead letters."""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Collection

from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import MAX_EVENT_BYTES, Event, encode_event

# Why an event died, in RabbitMQ's words.
DELIVERY_LIMIT_REACHED = "delivery_limit"
REJECTED = "rejected"

UNWIND_SECONDS = 5.0
"""How long a cancelled handler may take to clean up before it is left behind."""


class OversizedEventError(DrayError):
    """An event that no consumer would accept, caught before it is sent."""

    code = "event_too_large"


def pack_event(event: Event) -> bytes:
    body = encode_event(event)
    if len(body) > MAX_EVENT_BYTES:
        raise OversizedEventError(
            f"{event.type} takes {len(body)} bytes; the bus carries {MAX_EVENT_BYTES} at most"
        )
    return body


def letter_id(message_id: str | None, body: bytes) -> str:
    """The event's id, or one made of the content for a message that carries none."""
    return message_id or hashlib.sha256(body).hexdigest()


def printable(body: bytes) -> str:
    """A raw message as text; it may be anything."""
    return body[:MAX_EVENT_BYTES].decode(errors="replace")


def backoff(step: int, *, first: float, ceiling: float) -> float:
    """Seconds to wait before attempt `step` + 2: doubled each time, with jitter."""
    delay: float = min(ceiling, first * 2 ** min(step, 32)) * random.uniform(0.5, 1.0)
    return delay


def spread_over(seconds: float) -> float:
    """When one of very many comes back who were all cut off at the same moment."""
    return random.uniform(0.0, seconds)


def redelivery_delay(redeliveries: int) -> float:
    return backoff(redeliveries, first=0.2, ceiling=2.0)


async def pause(seconds: float, unless: asyncio.Event) -> None:
    """Sleep, but no longer than until `unless` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await unless.wait()


def being_cancelled() -> bool:
    """Whether a CancelledError is meant for this task, not left over from one that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def wind_down(handlers: Collection[asyncio.Task[None]], deadline: Deadline) -> None:
    """Let handlers finish within the deadline, then cancel them, also if we are cancelled."""
    if not handlers:
        return
    try:
        await asyncio.wait(handlers, timeout=deadline.remaining())
    finally:
        for handler in handlers:
            handler.cancel()
        await asyncio.wait(handlers, timeout=UNWIND_SECONDS)
