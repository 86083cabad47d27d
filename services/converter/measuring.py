"""What converters say of packs and registries under `/metrics`. No label ever names a registry."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Histogram

from services.converter.packing.pack_layer import PackSummary

PACKS: Final = Counter(
    "dray_packs_total", "Layers of images that were asked for as packs, by outcome.", ("outcome",)
)
PACK_BYTES: Final = Counter(
    "dray_pack_bytes_total", "Bytes of layers, by what they are.", ("what",)
)
SAVED_BYTES: Final = Counter(
    "dray_pack_saved_bytes_total",
    "Bytes of layers that needed no transfer, since their packs were there.",
)
PACK_SECONDS: Final = Histogram(
    "dray_pack_seconds",
    "How long it took to make a pack of a layer, its transfer included.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
REGISTRY_REQUESTS: Final = Counter(
    "dray_registry_requests_total", "Requests to registries, by outcome.", ("outcome",)
)
REGISTRY_WAITS: Final = Counter(
    "dray_registry_wait_seconds_total",
    "Seconds of pauses before registries were asked again.",
)

_FETCHED: Final = PACK_BYTES.labels("downloaded")
_INFLATED: Final = PACK_BYTES.labels("inflated")
_PACKED: Final = PACK_BYTES.labels("packed")
for _outcome in ("made", "proved", "found", "awaited", "failed"):
    PACKS.labels(_outcome)


def fetched(size: int) -> None:
    """Bytes of a layer have come, whatever becomes of it."""
    _FETCHED.inc(size)


@contextmanager
def packing() -> Iterator[None]:
    """A pack is being made; that somebody gave it up is no failure."""
    began = time.monotonic()
    try:
        yield
    except Exception:
        PACKS.labels("failed").inc()
        raise
    PACK_SECONDS.observe(time.monotonic() - began)


def packed(summary: PackSummary, *, proved: bool = False) -> None:
    """`proved`: the pack was there, and only had to be shown to be this user's, too."""
    PACKS.labels("proved" if proved else "made").inc()
    _INFLATED.inc(summary.tar_size)
    _PACKED.inc(summary.data_length)


def reused(size: int, *, awaited: bool) -> None:
    """The pack was there, or somebody else made it while this one waited."""
    PACKS.labels("awaited" if awaited else "found").inc()
    SAVED_BYTES.inc(size)


def answered(status: int) -> None:
    """A registry, or whom it redirects to, has answered."""
    REGISTRY_REQUESTS.labels(_outcome_of(status)).inc()


def _outcome_of(status: int) -> str:
    if status == 401:
        return "unauthorized"
    if status == 429:
        return "limited"
    if status >= 500:
        return "broken"
    if status >= 400:
        return "refused"
    return "redirected" if status >= 300 else "ok"
