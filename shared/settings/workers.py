"""Converter and distributor."""

from typing import Annotated

from pydantic import Field

from shared.models import Strict, SystemName
from shared.settings.types import AbsolutePath, GatewayUrl, Listen, Seconds


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
    import_dirs: tuple[AbsolutePath, ...] = ()
    """Below which files may be imported; none given: anywhere that their users may read."""
    import_min_uid: Annotated[int, Field(ge=1, le=0xFFFFFFFF)] = 1000
    """Users below are services, whose files are the site's."""
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
    reconcile_interval: Seconds = 3600.0
    """How often image directories and the catalog are compared."""
    reconcile_grace: Seconds = 300.0
    """What is younger is not looked at: not everybody may see it yet."""
    unknown_grace: Seconds = 7 * 86400.0
    """How long an image stays that the catalog does not know, before it is asked to go."""
    scrub_days: Annotated[int, Field(ge=0, le=3650)] = 30
    """How often each image is read and compared with its recipe; 0: never."""
    scrub_rate: Annotated[int, Field(ge=1 << 20)] = 32 << 20
    """In bytes per second, for each system."""
