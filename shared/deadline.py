"""One cumulative time budget that is passed down a call, instead of a timeout per step."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from shared.errors import DeadlineExceededError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time on the monotonic clock that every step of one piece of work shares."""

    at: float
    budget: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(at=time.monotonic() + seconds, budget=seconds)

    def remaining(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining() <= 0.0

    def sooner(self, seconds: float) -> "Deadline":
        """The earlier of this deadline and `seconds` from now: a bound for one step."""
        step = Deadline.after(seconds)
        return step if step.at < self.at else self

    @asynccontextmanager
    async def bound(self, doing: str) -> AsyncIterator[None]:
        """Run the body within the budget; `doing` completes "timed out while …"."""
        try:
            async with asyncio.timeout(self.remaining()) as timer:
                yield
        except TimeoutError as exc:
            if not timer.expired():  # somebody else's timeout: not ours to rename
                raise
            message = f"timed out after {self.budget:g} s while {doing}"
            raise DeadlineExceededError(message) from exc
