"""Prometheus metrics that every service has, and the watch over the event loop's lag.

Names are `dray_…` with base units; no label ever holds a user, an image or a node.
"""

import asyncio
import time
from importlib import metadata

from prometheus_client import Counter, Gauge, Histogram

BUILD_INFO = Gauge("dray_build_info", "Always 1: which version this process runs.", ("version",))
LOOP_LAG = Histogram(
    "dray_event_loop_lag_seconds",
    "How much later than asked the event loop ran a timer.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
EVENTS_HANDLED = Counter(
    "dray_events_handled_total",
    "Events that a handler finished, by type and outcome.",
    ("type", "outcome"),
)
EVENT_SECONDS = Histogram(
    "dray_event_handling_seconds",
    "How long a handler took, by event type.",
    ("type",),
    buckets=(0.001, 0.01, 0.1, 1, 10, 60, 600, 3600),
)
EVENT_WAITING = Histogram(
    "dray_event_waiting_seconds",
    "How long an event had been under way when its handler began, by event type.",
    ("type",),
    buckets=(0.01, 0.1, 1, 10, 60, 600, 3600),
)
EVENTS_PUBLISHED = Counter(
    "dray_events_published_total", "Events that the bus took over, by type.", ("type",)
)
CATALOG_SECONDS = Histogram(
    "dray_catalog_call_seconds",
    "How long the catalog's database took for a call, by outcome.",
    ("outcome",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
STORE_DAMAGED = Counter(
    "dray_store_damaged_total", "Files of the pack store that this process found damaged."
)
WOVEN_BYTES = Counter(
    "dray_woven_bytes_total",
    "Bytes of images that this process put into files, by how they came there.",
    ("how",),
)
BUS_CONNECTED = Gauge("dray_bus_connected", "Whether this process reaches the bus.")


def tell_version() -> None:
    """Once, when a service starts."""
    BUILD_INFO.labels(metadata.version("dray")).set(1)


async def watch_loop_lag(interval: float = 0.25) -> None:
    """Measure until cancelled how late the loop runs what it was asked to run."""
    while True:
        asked = time.monotonic() + interval
        await asyncio.sleep(interval)
        LOOP_LAG.observe(max(0.0, time.monotonic() - asked))
