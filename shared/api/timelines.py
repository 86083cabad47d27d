"""What happened when: to one pull, to one job."""

from typing import Literal

from shared.catalog.records import PullStep
from shared.models import Bytes, Instant, JobId, Tolerant

__all__ = ["JobMark", "JobMoment", "JobTimeline", "PullStep", "StagingQuantiles"]


JobMoment = Literal[
    "reserved",
    "announced",
    "first_node",
    "half_of_nodes",
    "most_nodes",
    "all_nodes",
    "first_rank",
    "released",
]


class JobMark(Tolerant):
    """Something that happened to a job; `most_nodes` are 99 of 100 that have the images."""

    moment: JobMoment
    at: Instant


class StagingQuantiles(Tolerant):
    """Of the nodes that have the images: seconds from being told to having them."""

    p50: float
    p90: float
    p99: float
    most: float


class JobTimeline(Tolerant):
    """GET /jobs/{id}/timeline: from its reservation to its end, as far as that has happened."""

    job_id: JobId
    marks: tuple[JobMark, ...]
    """In the order of time."""
    arrived: tuple[Bytes, ...]
    """How many nodes had the images, at equal distances of time from `announced` on."""
    step_seconds: float
    """That distance."""
    staging: StagingQuantiles | None
