"""What an operator wants to know first: is anybody waiting, and why."""

from typing import Literal

from shared.models import Bytes, Instant, Tolerant
from shared.states import State


class Worry(Tolerant):
    """Something that keeps users waiting, or soon will, and what to do about it.

    `code` is stable, and is the name of the runbook's heading.
    """

    code: str
    level: Literal["warning", "critical"]
    message: str


class StageStanding(Tolerant):
    """The pulls that are in one state."""

    state: State
    pulls: Bytes
    waiting: Bytes
    """Of these, those that no worker has taken up."""
    oldest_seconds: float
    """For how long the oldest of them has been in this state."""


class QueueStanding(Tolerant):
    """One work queue of the bus."""

    name: str
    waiting: Bytes
    """Events that no consumer has taken."""
    consumers: Bytes
    oldest_seconds: float | None
    """How long the first of them has waited, where that is known."""


class NodesStanding(Tolerant):
    """The nodes whose agents have been heard."""

    alive: Bytes
    lost: Bytes


class JobsStanding(Tolerant):
    """The jobs that have not ended, and their nodes."""

    running: Bytes
    nodes: Bytes
    pending: Bytes
    failed: Bytes
    lost: Bytes


class Overview(Tolerant):
    """GET /overview, and the event `overview` of GET /live.

    What is null is for admins only. Pulls are those that whoever asks may see.
    """

    at: Instant
    version: str
    worries: tuple[Worry, ...]
    """The worst first; empty: nobody waits for what does not come."""
    stages: tuple[StageStanding, ...]
    """Of the states under way, in their order; also those that have no pull."""
    failed: Bytes
    """Pulls whose failure is still shown."""
    queues: tuple[QueueStanding, ...] | None = None
    dead_letters: Bytes | None = None
    nodes: NodesStanding | None = None
    jobs: JobsStanding | None = None
