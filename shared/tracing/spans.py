"""Spans of work, each in the trace that it belongs to.

What is known of a trace here is its `traceparent` (W3C Trace Context): which trace, which span is
the parent, whether it is recorded. It is in the context of a task, travels in events and headers,
and is passed on also by a service that records nothing itself. A trace begins with a request; what
nobody asked for, such as heartbeats, has none.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal, Protocol

from shared.errors import DrayError

Kind = Literal["server", "consumer", "internal"]
Attributes = Mapping[str, str | int | float | bool]

# The version of the format that everybody writes; the ids must not be all zeros.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """A piece of work that is being recorded."""

    @property
    def traceparent(self) -> str: ...

    def note(self, attributes: Attributes) -> None: ...

    def end(self, failure: str | None) -> None:
        """`failure` is a code; messages may name what is nobody else's."""


class Recorder(Protocol):
    """Whoever keeps spans."""

    def begin(
        self, service: str, name: str, kind: Kind, parent: str | None, attributes: Attributes
    ) -> Span: ...


class _Nothing:
    """The span of what is not recorded."""

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent

    def note(self, attributes: Attributes) -> None:
        """Nobody listens."""

    def end(self, failure: str | None) -> None:
        """Nobody listens."""


_recorder: Recorder | None = None
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)
_service: ContextVar[str] = ContextVar("traced_service", default="dray")


def recorded_by(recorder: Recorder | None) -> None:
    """From now on spans of this process go there; None: nowhere."""
    global _recorder  # noqa: PLW0603 - one process has one place to send them, as with logs
    _recorder = recorder


def recording() -> bool:
    return _recorder is not None


def serving(name: str) -> None:
    """Spans of this task, and of the tasks that it starts, are this service's."""
    _service.set(name)


def current() -> str | None:
    """What work that begins here belongs to; None: no trace."""
    return _current.get()


def is_traceparent(text: str) -> bool:
    return _TRACEPARENT.fullmatch(text) is not None


def trace_id(traceparent: str) -> str:
    return traceparent[3:35]


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    root: bool = False,
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """The body is one piece of work of its parent's trace, which is the current one by default.

    Without either there is nothing to record, unless a trace may begin here (`root`).
    """
    parent = parent or _current.get()
    recorder = _recorder
    if recorder is None or (parent is None and not root):
        if parent is None:
            yield _Nothing()
            return
        span: Span = _Nothing(parent)
    else:
        span = recorder.begin(_service.get(), name, kind, parent, attributes or {})
    token = _current.set(span.traceparent)
    failure: str | None = "interrupted"
    try:
        yield span
        failure = None
    except DrayError as exc:
        failure = exc.code
        raise
    except Exception as exc:
        failure = type(exc).__name__
        raise
    finally:
        _current.reset(token)
        span.end(failure)
