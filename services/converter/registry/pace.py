"""Tells a slow connection from one that is only kept busy: so many bytes per window of time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.converter.registry.errors import RegistryTooSlowError


@dataclass(slots=True)
class Pace:
    """Counts the bytes of one answer, and only the time in which we waited for them."""

    host: str | None
    window: float
    least_rate: int
    _waited: float = 0.0
    _received: int = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    def received(self, count: int) -> None:
        """Raises when a whole window brought less than it must."""
        self._received += count
        if self._waited < self.window:
            return
        if self._received < self.least_rate * self._waited:
            raise RegistryTooSlowError(
                f"{self.host} sent {self._received:,} bytes in {self._waited:.0f} s, which is less "
                f"than {self.least_rate:,} in a second: try again later, or ask its administrator"
            )
        self._waited = 0.0
        self._received = 0
