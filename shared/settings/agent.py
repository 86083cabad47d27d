"""The agent of one compute node, and its cache of images."""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shared.models import ImageId, NodeName, Strict, SystemName
from shared.settings.types import Listen, Seconds

CachePolicy = Literal["in_place", "copy", "copy_when_busy"]


class CacheSettings(Strict):
    """Copies of images on the node's own disk, or in its memory."""

    dir: Path | None = None
    """None: images are mounted straight from the shared directory, always."""
    policy: CachePolicy = "copy_when_busy"
    max_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 30
    reserve_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """What its file system keeps free for others."""
    patience: Seconds = 30.0
    """How long a job waits for a copy before it takes the image from the shared directory."""
    busy_seconds: Annotated[float, Field(ge=0, le=60)] = 0.05
    """A first read of the shared file that takes longer means that it is busy."""
    rate: Annotated[int, Field(ge=1 << 10)] | None = None
    """Bytes per second that all copies together read from the shared directory."""
    copies: Annotated[int, Field(ge=1, le=64)] = 2
    """At once."""
    pinned: tuple[ImageId, ...] = ()
    """Never evicted, once they are there."""


class AgentSettings(Strict):
    """One compute node."""

    listen: Listen = "127.0.0.1:7603"
    node: NodeName = Field(default_factory=socket.gethostname)
    system: SystemName = "local"
    run_dir: Path | None = None
    """Mounts, job state and the local socket; default `agent` in data_dir."""
    mount: Literal["auto", "loop", "squashfuse", "unpack"] = "auto"
    stage_timeout: Seconds = 120.0
    heartbeat: Seconds = 30.0
    reconnect_within: Seconds = 15.0
    """Over how long the agents of a cluster spread when their broker is back."""
    cache: CacheSettings = CacheSettings()
