"""What operators see and do."""

from shared.models import Instant, Tolerant


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
