"""Traces: where the time of one request goes, from its REST call through all services.

`spans` is what the code uses; it needs no package, and does next to nothing until a site has
traces sent somewhere (`tracing.endpoint`). `export` sends them, by OpenTelemetry.
"""

from shared.tracing.spans import (
    Attributes,
    Kind,
    Recorder,
    Span,
    current,
    is_traceparent,
    recorded_by,
    recording,
    serving,
    span,
    trace_id,
)

__all__ = [
    "Attributes",
    "Kind",
    "Recorder",
    "Span",
    "current",
    "is_traceparent",
    "recorded_by",
    "recording",
    "serving",
    "span",
    "trace_id",
]
