"""The gateway: its API, and the rules of pulls."""

from typing import Annotated

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


class PullSettings(Strict):
    """The state machine's clocks."""

    lease: Seconds = 60.0
    """A worker that said nothing for so long is taken as dead; its pull is tried again."""
    queue_timeout: Seconds = 3600.0
    """How long a pull may wait for a converter before it fails and says so."""
    max_tries: Annotated[int, Field(ge=1, le=100)] = 5
    sweep_interval: Seconds = 5.0
