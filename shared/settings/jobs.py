"""What the scheduler announces, and the nodes: how long it is waited for, and kept."""

from typing import Annotated

from pydantic import Field

from shared.models import Strict

Days = Annotated[int, Field(ge=1, le=3650)]


class JobSettings(Strict):
    """Jobs, and the nodes' agents that they run on."""

    reservation_days: Days = 14
    """How long a job may hold its images before it gets nodes."""
    keep_days: Days = 30
    """After its end; then job and nodes are forgotten."""
    lost_after: Annotated[int, Field(ge=2, le=100)] = 3
    """Heartbeats that did not come; then a node is shown as lost."""
    keep_nodes_days: Days = 30
    """After its last heartbeat."""
