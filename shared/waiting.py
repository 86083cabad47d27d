"""Whoever waits for somebody else says so here; whoever reports the work can tell it then.

What waits is deep below what reports, with much between that knows of neither: hence a context
variable. Work that nobody reports waits as well, and nobody is told.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final


class Waits:
    """What one piece of work waits for, in all of its tasks."""

    def __init__(self) -> None:
        self._reasons: dict[object, str] = {}

    @property
    def reason(self) -> str | None:
        """Of several the latest."""
        return next(reversed(self._reasons.values()), None)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Of what the body waits for, and the tasks that it starts."""
        token = _heard_by.set(self)
        try:
            yield
        finally:
            _heard_by.reset(token)

    @contextmanager
    def waiting(self, reason: str) -> Iterator[None]:
        mark = object()
        self._reasons[mark] = reason
        try:
            yield
        finally:
            del self._reasons[mark]


_heard_by: Final[ContextVar[Waits | None]] = ContextVar("heard_by", default=None)


@contextmanager
def waiting_for(reason: str) -> Iterator[None]:
    """The body waits, for this reason."""
    waits = _heard_by.get()
    if waits is None:
        yield
        return
    with waits.waiting(reason):
        yield
