"""Tells Prometheus how the site stands; see docs/metrics.md.

What is not known is not told: a gauge that stays as it was would say that nothing is wrong.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.gateway.standing.audience import EVERYTHING
from services.gateway.standing.overview import Overviews
from services.gateway.standing.worries import AWAY, CODES
from shared.api import Overview, QueueStanding, StageStanding
from shared.states import State

INTERVAL: Final = 10.0
STALE_SECONDS: Final = 60.0

Values = list[tuple[str, float]] | float | None
"""By the label's value; of a gauge without labels one number. None: not known."""


@dataclass(frozen=True, slots=True)
class SiteGauge:
    """A figure that is read from an overview."""

    name: str
    documentation: str
    labels: tuple[str, ...] = ()
    read: Callable[[Overview], Values] = lambda _: None

    def family(self, seen: Overview) -> Metric | None:
        values = self.read(seen)
        if values is None:
            return None
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        if isinstance(values, int | float):
            family.add_metric((), values)
        else:
            for label, number in values:
                family.add_metric((label,), number)
        return family


def _queues(seen: Overview, figure: Callable[[QueueStanding], float]) -> Values:
    return None if seen.queues is None else [(each.name, figure(each)) for each in seen.queues]


def _stages(
    seen: Overview, figure: Callable[[StageStanding], float]
) -> list[tuple[str, float]] | None:
    """With the catalog away, what is shown of pulls is what was known last."""
    if AWAY in _codes(seen):
        return None
    return [(each.state.value, figure(each)) for each in seen.stages]


def _pulls(seen: Overview) -> Values:
    stages = _stages(seen, lambda each: each.pulls)
    return None if stages is None else [*stages, (State.FAILURE.value, seen.failed)]


def _job_nodes(seen: Overview) -> Values:
    jobs = seen.jobs
    if jobs is None:
        return None
    return [("pending", jobs.pending), ("failed", jobs.failed), ("lost", jobs.lost)]


def _worries(seen: Overview) -> Values:
    present = _codes(seen)
    return [(code, float(code in present)) for code in CODES]


def _codes(seen: Overview) -> set[str]:
    return {worry.code for worry in seen.worries}


SITE: Final = (
    SiteGauge(
        "dray_queue_events",
        "Events of a work queue that no consumer has taken.",
        ("queue",),
        read=lambda seen: _queues(seen, lambda each: each.waiting),
    ),
    SiteGauge(
        "dray_queue_consumers",
        "Services that take events from a work queue.",
        ("queue",),
        read=lambda seen: _queues(seen, lambda each: each.consumers),
    ),
    SiteGauge(
        "dray_dead_letters",
        "Events that failed for good.",
        read=lambda seen: seen.dead_letters,
    ),
    SiteGauge(
        "dray_pulls",
        "Pulls under way, and those whose failure is still shown.",
        ("state",),
        read=_pulls,
    ),
    SiteGauge(
        "dray_pulls_waiting",
        "Pulls that no worker has taken up.",
        ("state",),
        read=lambda seen: _stages(seen, lambda each: each.waiting),
    ),
    SiteGauge(
        "dray_pulls_oldest_seconds",
        "For how long the oldest pull has been in its state.",
        ("state",),
        read=lambda seen: _stages(seen, lambda each: each.oldest_seconds),
    ),
    SiteGauge(
        "dray_nodes",
        "Nodes whose agents have been heard.",
        ("state",),
        read=lambda seen: None if seen.nodes is None else list(dict(seen.nodes).items()),
    ),
    SiteGauge(
        "dray_jobs_running",
        "Jobs that have not ended.",
        read=lambda seen: None if seen.jobs is None else seen.jobs.running,
    ),
    SiteGauge(
        "dray_job_nodes",
        "Nodes of these jobs whose images are not there.",
        ("state",),
        read=_job_nodes,
    ),
    SiteGauge("dray_worries", "Whether the overview has this worry.", ("code",), read=_worries),
)


class SiteGauges(Collector):
    """What was seen last, as long as that is not too old."""

    def __init__(self) -> None:
        self._seen: Overview | None = None
        self._seen_at = 0.0

    def show(self, overview: Overview) -> None:
        self._seen, self._seen_at = overview, time.monotonic()

    def forget(self) -> None:
        self._seen = None

    def collect(self) -> Iterable[Metric]:
        """In whichever thread is asked."""
        seen = self._seen
        if seen is None or time.monotonic() - self._seen_at > STALE_SECONDS:
            return
        for gauge in SITE:
            if (family := gauge.family(seen)) is not None:
                yield family


GAUGES: Final = SiteGauges()
REGISTRY.register(GAUGES)


async def refresh(overviews: Overviews, systems: Sequence[str]) -> None:
    """As an admin would see it. What cannot be seen at all is forgotten."""
    try:
        view = await overviews.view(EVERYTHING, systems)
    except BaseException:
        GAUGES.forget()
        raise
    GAUGES.show(view.overview)
