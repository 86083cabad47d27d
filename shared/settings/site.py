"""Clusters, registries, and what all services share: bus, catalog, logs."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from shared.image.recipe import DeadShare, PackOptions
from shared.models import Strict
from shared.settings.layout import LayoutSettings
from shared.settings.types import Mirror, Platform, ProxyUrl, Seconds, this_platform


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
    """Plain HTTP. So are loopback addresses without a certificate in their entry."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    """Who we are to a registry that wants to see a certificate; default: in the same file."""
    username: str | None = None
    password_file: Path | None = None
    mirrors: Annotated[tuple[Mirror, ...], Field(max_length=8)] = ()
    """Asked before it, in this order; each has its own entry, if it needs one."""
    proxy: ProxyUrl | None = None
    """Whatever the environment says; default: what that says."""
    connections: Annotated[int, Field(ge=1, le=1024)] = 16
    """Layers that one converter reads at a time, of all its pulls."""

    @model_validator(mode="after")
    def _of_one_piece(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            message = "key_file is of no use without cert_file"
            raise ValueError(message)
        if self.insecure and self.cert_file is not None:
            message = "insecure is plain HTTP, which knows no cert_file"
            raise ValueError(message)
        return self


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
