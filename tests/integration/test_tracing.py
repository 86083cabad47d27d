"""Sending spans: what arrives, what is left out, and a collector that is not there."""

import asyncio
import time

from pydantic import HttpUrl

from shared import tracing
from shared.settings.tracing import TracingSettings
from shared.tracing.start import tracing as traced
from tests.support.collector import Collector, collecting
from tests.support.ports import free_port

UNRECORDED = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"


def settings(endpoint: str, sample: float = 1.0) -> TracingSettings:
    return TracingSettings(endpoint=HttpUrl(endpoint), sample=sample)


async def sent(collector: Collector, *, sample: float) -> None:
    def work() -> None:
        with traced(settings(collector.endpoint, sample)):
            tracing.serving("converter")
            with tracing.span("begun here", root=True):
                pass
            with tracing.span("not recorded", parent=UNRECORDED) as span:
                assert tracing.trace_id(span.traceparent) == "a" * 32
                assert span.traceparent.endswith("-00")

    await asyncio.to_thread(work)


async def test_what_was_begun_is_sent_when_the_service_stops() -> None:
    async with collecting() as collector:
        await sent(collector, sample=1.0)
    assert [(span.service, span.name) for span in collector.spans] == [("converter", "begun here")]
    assert not tracing.recording()


async def test_a_share_of_none_records_nothing() -> None:
    async with collecting() as collector:
        await sent(collector, sample=0.0)
    assert collector.spans == []


def test_a_collector_that_is_away_holds_nobody_up() -> None:
    began = time.monotonic()
    with traced(settings(f"http://127.0.0.1:{free_port()}")):
        for _ in range(100):
            with tracing.span("lost", root=True):
                pass
    assert time.monotonic() - began < 15
