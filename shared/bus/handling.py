"""What surrounds every handler, in every service: the log context and the metrics."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager

from shared.bus.interface import Handler
from shared.errors import DrayError
from shared.events import AnyEvent, Event, MalformedEventError
from shared.logging import following, get_logger
from shared.metrics import EVENT_SECONDS, EVENT_WAITING, EVENTS_HANDLED
from shared.models import utcnow
from shared.tracing import Attributes, Span, span

log = get_logger(__name__)

Handlers = Mapping[type[Event], Callable[..., Awaitable[None]]]
"""One handler for each type of event that a service takes."""


def dispatch(handlers: Handlers) -> Handler:
    """One handler for a queue that carries several types."""

    async def handle(event: AnyEvent) -> None:
        handler = handlers.get(type(event))
        if handler is None:
            raise MalformedEventError(f"{event.type} does not belong on this queue")
        await _observe(event, handler)

    return handle


def waited(event: Event) -> float:
    """Seconds since it was sent; never negative, although clocks differ."""
    return max(0.0, (utcnow() - event.time).total_seconds())


async def _observe(event: AnyEvent, handler: Callable[..., Awaitable[None]]) -> None:
    EVENT_WAITING.labels(event.type).observe(waited(event))
    started = time.monotonic()
    outcome = "interrupted"
    with following(event), _traced(event):
        try:
            await handler(event)
            outcome = "done"
        except DrayError as exc:
            outcome = "failed"
            log.warning("event_not_handled", code=exc.code, error=exc.message)
            raise
        except Exception:
            outcome = "failed"
            log.exception("event_not_handled")
            raise
        finally:
            EVENTS_HANDLED.labels(event.type, outcome).inc()
            EVENT_SECONDS.labels(event.type).observe(time.monotonic() - started)


def _traced(event: AnyEvent) -> AbstractContextManager[Span]:
    attributes: Attributes = {
        "messaging.message.id": event.id,
        "messaging.message.conversation_id": event.correlation_id,
    }
    return span(event.type, kind="consumer", parent=event.trace, attributes=attributes)
