"""The gateway: its API, and the rules of pulls."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from shared.models import Strict
from shared.settings.types import Listen, Seconds


class GatewaySettings(Strict):
    """The REST API and the dashboard."""

    listen: Listen = "127.0.0.1:7600"
    names: tuple[str, ...] = ()
    """Names by which users reach it, beside its addresses, `localhost` and its host's name."""
    request_timeout: Seconds = 30.0
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 4 << 20
    socket: Path | None = None
    """For users of the same machine, who are known by it; default `gateway.sock` in data_dir."""
    munge_socket: Path | None = None
    """Where munged listens, if not where its library looks."""
    secret_file: Path | None = None
    """Signs tokens, and seals users' registry passwords; the same for all gateways."""
    admins: tuple[str, ...] = ()
    """Users by name or uid, besides root and the gateway's own user: operators, the scheduler."""
    anonymous: Literal["none", "read", "pull"] = "pull"
    """What the public may do, who does not say who it is: with public images only."""
    token_max_life: Seconds = 86400.0
    login_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long a user's login to a registry is kept."""
    requests_per_second: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """For each user, as are the next two, at each gateway."""
    request_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    streams_per_user: Annotated[int, Field(ge=1, le=100_000)] = 64
    exports_per_user: Annotated[int, Field(ge=1, le=64)] = 4
    """Images that are being fetched as files; for each user, at each gateway."""
    connections_per_user: Annotated[int, Field(ge=8, le=100_000)] = 512
    """Over a network for each address, which may be that of a proxy."""


class PullSettings(Strict):
    """The state machine's clocks."""

    lease: Seconds = 60.0
    """A worker that said nothing for so long is taken as dead; its pull is tried again."""
    queue_timeout: Seconds = 3600.0
    """How long a pull may wait for a converter before it fails and says so."""
    max_tries: Annotated[int, Field(ge=1, le=100)] = 5
    sweep_interval: Seconds = 5.0
    fresh_for: Annotated[float, Field(ge=0, le=7 * 86400)] = 60.0
    """A pull asks the registry no more about what it confirmed so lately."""
