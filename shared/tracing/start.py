"""Traces for the time that services run, where the site wants them."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.settings.tracing import TracingSettings


@contextmanager
def tracing(settings: TracingSettings) -> Iterator[None]:
    """OpenTelemetry is looked for only where spans are to be sent."""
    if settings.endpoint is None:
        yield
        return
    from shared.tracing.export import exporting  # noqa: PLC0415

    with exporting(settings):
        yield
