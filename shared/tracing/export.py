"""Spans to a collector, by OpenTelemetry's protocol over HTTP.

They are sent in the background, in batches; where the collector is away or slow, spans are
dropped, and work goes on. What the standard variables say (`OTEL_EXPORTER_OTLP_HEADERS`, …) holds
too. Each service is one to the collector, also where several share a process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shared.errors import MissingDependencyError
from shared.settings.tracing import TracingSettings
from shared.tracing.spans import Attributes, Kind, Recorder, Span, recorded_by

try:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import Span as OpenSpan
    from opentelemetry.trace import SpanKind, Tracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.trace.status import Status, StatusCode
except ImportError as exc:
    raise MissingDependencyError(
        "tracing.endpoint is set, and OpenTelemetry is not installed here: "
        "pip install 'dray[tracing]'"
    ) from exc

PATH: Final = "/v1/traces"
_SEND_SECONDS: Final = 5.0
_STOP_MILLISECONDS: Final = 3000
_KINDS: Final = {
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
_FORMAT: Final = TraceContextTextMapPropagator()


class _Recorded:
    """One span."""

    def __init__(self, span: OpenSpan) -> None:
        self._span = span
        context = span.get_span_context()
        flags = f"{int(context.trace_flags):02x}"
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags}"

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def end(self, failure: str | None) -> None:
        if failure is not None:
            self._span.set_attribute("error.type", failure)
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.end()


class Exporter:
    """Keeps spans until they are sent."""

    def __init__(self, endpoint: str, sample: float) -> None:
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + PATH, timeout=_SEND_SECONDS)
        self._processor = BatchSpanProcessor(exporter)
        self._sampler = ParentBased(TraceIdRatioBased(sample))
        self._tracers: dict[str, Tracer] = {}

    def begin(
        self, service: str, name: str, kind: Kind, parent: str | None, attributes: Attributes
    ) -> Span:
        context = Context()
        if parent is not None:
            context = _FORMAT.extract({"traceparent": parent}, context)
        span = self._tracer(service).start_span(
            name, context, kind=_KINDS[kind], attributes=dict(attributes)
        )
        return _Recorded(span)

    def close(self) -> None:
        """Send what is left, for some seconds at most."""
        self._processor.force_flush(_STOP_MILLISECONDS)
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _tracer(self, service: str) -> Tracer:
        known = self._tracers.get(service)
        if known is None:
            resource = Resource.create({SERVICE_NAME: service, SERVICE_NAMESPACE: "dray"})
            provider = TracerProvider(self._sampler, resource, shutdown_on_exit=False)
            provider.add_span_processor(self._processor)
            known = self._tracers[service] = provider.get_tracer("dray")
        return known


@contextmanager
def exporting(settings: TracingSettings) -> Iterator[Recorder]:
    """Spans of this process are sent, while the body runs."""
    assert settings.endpoint is not None
    exporter = Exporter(str(settings.endpoint), settings.sample)
    recorded_by(exporter)
    try:
        yield exporter
    finally:
        recorded_by(None)
        exporter.close()
