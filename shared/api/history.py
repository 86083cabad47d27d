"""The last hours, in figures."""

from shared.models import Instant, Tolerant


class HistoryView(Tolerant):
    """GET /history: figures at equal distances of time, the oldest first.

    `series` has one list for each figure, all of `times`' length; null: not known then. Figures
    that end in `_total` count what happened within the step, others are how it stood at its end.
    """

    step_seconds: float
    times: tuple[Instant, ...]
    series: dict[str, tuple[float | None, ...]]
