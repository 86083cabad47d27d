"""Statistics of use: what is kept, and for how long."""

from typing import Annotated

from pydantic import Field

from shared.models import Strict
from shared.settings.types import Seconds


class UsageSettings(Strict):
    """Who used which image, hour by hour."""

    flush_interval: Seconds = 5.0
    """A gateway that crashes loses what it counted since the last one."""
    keep_days: Annotated[int, Field(ge=1, le=3650)] = 400
    max_records: Annotated[int, Field(ge=1000, le=10_000_000)] = 1_000_000
    """Above it, what was used longest ago is forgotten first."""
