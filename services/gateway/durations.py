"""How long pulls, their stages and nodes' stagings take, for Prometheus.

Each is observed once: by the gateway whose compare-and-set made it so.
"""

from typing import Final

from prometheus_client import Counter, Histogram

from shared.catalog.records import ImageRecord, StagingRecord, StagingState
from shared.states import State

_OF_A_PULL: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_OF_A_NODE: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)

PULL_STAGES: Final = Histogram(
    "dray_pull_stage_seconds",
    "How long pulls were in a state, waiting for a worker included.",
    ("state",),
    buckets=_OF_A_PULL,
)
PULL_SECONDS: Final = Histogram(
    "dray_pull_seconds",
    "From the request of a pull to its end, by outcome.",
    ("outcome",),
    buckets=_OF_A_PULL,
)
NODE_STAGING: Final = Histogram(
    "dray_node_staging_seconds",
    "How long nodes took to have a job's images, as they say, by how they have them.",
    ("how",),
    buckets=_OF_A_NODE,
)
NODE_STAGINGS: Final = Counter(
    "dray_node_stagings_total", "Nodes' answers to announcements of jobs.", ("outcome",)
)
JOB_READY: Final = Histogram(
    "dray_job_ready_seconds",
    "From the announcement of a job to the last answer of its nodes.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)

OTHER: Final = "other"
MOST_CODES: Final = 32
_codes: set[str] = set()
"""Of failures. They come from agents: whatever those say, there are never many."""


def pull_changed(before: ImageRecord | None, after: ImageRecord) -> None:
    """A pull has moved on, or ended."""
    if before is None or not before.state.in_flight or before.pull_id != after.pull_id:
        return
    if before.steps and after.steps[-1] != before.steps[-1]:
        left, entered = before.steps[-1], after.steps[-1]
        PULL_STAGES.labels(left.state.value).observe((entered.at - left.at).total_seconds())
    if not after.state.in_flight:
        seconds = (after.updated_at - after.requested_at).total_seconds()
        PULL_SECONDS.labels(outcome_of(before, after)).observe(max(0.0, seconds))


def outcome_of(before: ImageRecord, after: ImageRecord) -> str:
    """How a pull ended: `placed`, `unchanged` or `failed`."""
    if after.state is not State.READY:
        return "failed"
    return "unchanged" if after.current == before.current else "placed"


def node_answered(staging: StagingRecord) -> None:
    """A node's answer has been written down, for the first time."""
    if staging.failure is not None:
        NODE_STAGINGS.labels(_known(staging.failure.code)).inc()
        return
    NODE_STAGINGS.labels(staging.state.value.lower()).inc()
    if staging.seconds is not None and staging.state.mounted:
        NODE_STAGING.labels(staging.state.value).observe(staging.seconds)


def _known(code: str) -> str:
    if code not in _codes and len(_codes) >= MOST_CODES:
        return OTHER
    _codes.add(code)
    return code


for _state in State:
    if _state.in_flight:
        PULL_STAGES.labels(_state.value)
for _staging in StagingState:
    if _staging.mounted:
        NODE_STAGING.labels(_staging.value)
