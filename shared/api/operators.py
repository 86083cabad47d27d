"""What operators see and do."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from shared.models import Bytes, Instant, Strict, Tolerant

LetterId = Annotated[str, Field(min_length=1, max_length=256)]


class DeadLetterView(Tolerant):
    """GET /admin/dead-letters: an event that no handler could digest."""

    id: str
    queue: str
    reason: str
    deliveries: int
    died_at: Instant | None
    body: str


class DeadLettersView(Tolerant):
    """GET /admin/dead-letters."""

    items: tuple[DeadLetterView, ...]
    total: Bytes = 0
    """How many there are, shown or not."""


class ReplayRequest(Strict):
    """POST /admin/dead-letters/replay: these, those of one queue, or all of them."""

    ids: Annotated[tuple[LetterId, ...], Field(max_length=10_000)] | None = None
    queue: Annotated[str, Field(min_length=1, max_length=255)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.ids is not None and self.queue is not None:
            raise ValueError("name ids or a queue, not both")
        return self


class ReplayView(Tolerant):
    """What became of it."""

    replayed: Bytes
    left: Bytes
    """Dead letters that there still are, wanted or not."""
