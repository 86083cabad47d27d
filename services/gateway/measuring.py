"""Measures requests, for Prometheus: how long, how they ended, and who was not let in.

The client library's own histogram takes three times as long to note a request, for locks that one
event loop needs not: this one counts, and adds up when it is asked.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from aiohttp import web
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.gateway.auth.identity import PRINCIPAL

UNKNOWN: Final = "unknown"
"""For what is none of a few known values: a label must not be a client's to choose."""
GONE: Final = "gone"
"""The status of a request whose client went away before the answer."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LABELS: Final = ("route", "method", "status", "via")

Kind = tuple[str, str, str, str]


@dataclass(slots=True)
class _Seen:
    """Requests of one kind: how many in each bucket, and their seconds."""

    counts: list[int]
    seconds: float = 0.0


class RequestTimes(Collector):
    """A histogram of seconds by route, method, status and how it was known who asks."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._seen: dict[Kind, _Seen] = {}

    def note(self, kind: Kind, seconds: float) -> None:
        """In the event loop only."""
        seen = self._seen.get(kind)
        if seen is None:
            seen = self._seen[kind] = _Seen([0] * (len(self._bounds) + 1))
        seen.counts[bisect_left(self._bounds, seconds)] += 1
        seen.seconds += seconds

    def collect(self) -> Iterable[Metric]:
        """In whichever thread is asked; what is noted meanwhile may be in it or not."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=LABELS)
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for kind, seen in tuple(self._seen.items()):
            counts = list(zip(names, accumulate(tuple(seen.counts)), strict=True))
            family.add_metric(kind, counts, seen.seconds)
        return [family]


def kind_of(request: web.Request, status: int | None) -> Kind:
    """Under which labels a request counts; no status: its client has gone."""
    principal = request.get(PRINCIPAL)
    method = request.method
    resource = request.match_info.route.resource
    return (
        UNKNOWN if resource is None else resource.canonical,
        method if method in _METHODS else UNKNOWN,
        GONE if status is None else str(status),
        UNKNOWN if principal is None else principal.via,
    )
