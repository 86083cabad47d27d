"""Very many nodes in few bytes: a letter for each."""

from typing import Literal

from shared.api.jobs import JobSummary, StagingView
from shared.models import Bytes, JobId, SystemName, Tolerant

NodeLetter = Literal["A", "B", "L"]
"""Of a node: alive, alive with mounts (busy), lost."""
StagingLetter = Literal["P", "S", "I", "F", "L", "R"]
"""Of a job's node: PENDING, STAGED, IN_PLACE, FAILED, LOST, RELEASED."""


class NodeGrid(Tolerant):
    """GET /nodes/grid: the nodes of one system by name, as one hostlist, and a letter for each.

    `letters` is in the order of the hostlist's expansion.
    """

    system: SystemName
    hostlist: str
    letters: str


class JobGrid(Tolerant):
    """GET /jobs/{id}/grid, and the event `grid` of GET /jobs/{id}/events."""

    job_id: JobId
    hostlist: str
    letters: str


class JobGridChange(Tolerant):
    """The event `change` of GET /jobs/{id}/events: new letters of some nodes of the grid."""

    at: tuple[Bytes, ...]
    """Places in the order of the grid, from 0."""
    letters: str


class JobLive(Tolerant):
    """The event `job` of GET /jobs/{id}/events: its numbers, and the nodes with trouble."""

    job: JobSummary
    troubled: tuple[StagingView, ...]
    """The first that failed or are lost, with reasons."""
