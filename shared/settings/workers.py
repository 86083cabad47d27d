"""Converter, distributor, node agent."""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shared.models import NodeName, Strict, SystemName
from shared.settings.types import GatewayUrl, Listen, Seconds


class ConverterSettings(Strict):
    """How much of a machine a converter may use."""

    listen: Listen = "127.0.0.1:7601"
    slots: Annotated[int, Field(ge=1, le=256)] = 2
    check_slots: Annotated[int, Field(ge=1, le=1024)] = 16
    parallel_layers: Annotated[int, Field(ge=1, le=64)] = 3
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Compression threads of each layer in work; 0 takes one per core."""
    pull_timeout: Seconds = 4 * 3600.0
    max_layer_bytes: Annotated[int, Field(ge=1 << 20)] = 512 << 30
    gateway: GatewayUrl | None = None
    """Where to fetch users' registry passwords; default: the gateway of the same machine."""


class HousekeepingSettings(Strict):
    """What converters do for the pack store besides filling it; one of them at a time."""

    interval: Seconds = 3600.0
    grace: Seconds = 86400.0
    """Never shorter than converter.pull_timeout: a pull counts on the packs that it has found."""
    keep_unused_days: Annotated[int, Field(ge=1, le=3650)] = 30
    max_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    scrub_days: Annotated[int, Field(ge=0, le=3650)] = 30
    """0: never."""
    scrub_rate: Annotated[int, Field(ge=1 << 20)] = 32 << 20
    """In bytes per second."""


class DistributorSettings(Strict):
    """Which systems this distributor serves; none named means all."""

    listen: Listen = "127.0.0.1:7602"
    systems: tuple[SystemName, ...] = ()
    slots: Annotated[int, Field(ge=1, le=256)] = 2
    placement_timeout: Seconds = 3600.0
    removal_interval: Seconds = 60.0
    """How often it asks again whether what should go may go, and ends what has no grace left."""
    removal_grace: Seconds = 86400.0
    """How long the file of a removed image stays, without a name that anybody looks for."""


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
