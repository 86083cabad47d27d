"""Clusters, registries, and what all services share: bus, catalog, logs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from shared.image.recipe import DeadShare, PackOptions
from shared.models import Strict
from shared.settings.layout import LayoutSettings
from shared.settings.types import Platform, Seconds, this_platform


class SystemSettings(Strict):
    """One cluster: where its images are placed, and how they are made."""

    image_dir: Path
    platform: Platform = Field(default_factory=this_platform)
    pack: PackOptions = PackOptions()
    max_dead_share: DeadShare = 0.15
    expire_after_days: Annotated[int, Field(ge=0, le=3650)] = 90
    """Without being used; 0: never."""
    max_bytes: Annotated[int, Field(ge=0)] | None = None
    """Instead of what the quotas say of every system."""
    reserve_bytes: Annotated[int, Field(ge=0)] = 1 << 30
    """Of the file system, that no image may take."""
    layout: LayoutSettings = LayoutSettings()


class RegistrySettings(Strict):
    """One registry, by host[:port] as references write it: how to reach it and as whom."""

    insecure: bool = False
    """Plain HTTP. Loopback addresses are taken as plain HTTP without being asked."""
    ca_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None


class BusSettings(Strict):
    """`embedded:` for one process; `amqp://` or `amqps://` for RabbitMQ."""

    url: SecretStr = SecretStr("embedded:")
    publish_timeout: Seconds = 10.0


class CatalogSettings(Strict):
    """`sqlite:` (in data_dir), `sqlite:///path`, or `mongodb://…`."""

    url: SecretStr = SecretStr("sqlite:")
    timeout: Seconds = 10.0


class LogSettings(Strict):
    """JSON for machines, console for people; `auto` asks whether stderr is a terminal."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
