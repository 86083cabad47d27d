"""Where traces are sent."""

from typing import Annotated

from pydantic import Field, HttpUrl

from shared.models import Strict


class TracingSettings(Strict):
    """OpenTelemetry; needs the extra `tracing`."""

    endpoint: HttpUrl | None = None
    """Of a collector that takes OTLP over HTTP; None: no traces."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Which share of the traces that begin here is recorded."""
