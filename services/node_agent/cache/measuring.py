"""What the agent says of its staging and its cache under `/metrics`."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

STAGING: Final = Histogram(
    "dray_agent_staging_seconds",
    "How long it took to mount an image, the copying before it included.",
    ("how", "from"),
    buckets=(
        *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
        *(1, 2.5, 5, 10, 30, 60, 120, 300, 600),
    ),
)
MOUNTS: Final = Gauge("dray_agent_mounts", "Images that are mounted on this node.")
JOBS: Final = Gauge("dray_agent_jobs", "Jobs that hold images on this node.")
BYTES: Final = Gauge("dray_agent_cache_bytes", "Bytes of images in this node's cache.")
HITS: Final = Counter("dray_agent_cache_hits_total", "Mounts whose image was in the cache.")
MISSES: Final = Counter("dray_agent_cache_misses_total", "Mounts whose image was not there.")
EVICTIONS: Final = Counter("dray_agent_cache_evictions_total", "Copies that made room for others.")
COPIED: Final = Counter(
    "dray_agent_copied_bytes_total", "Bytes that copies took from the shared directory."
)
SAVED: Final = Counter(
    "dray_agent_saved_bytes_total", "Bytes that copies took from other images of this node."
)
FALLBACKS: Final = Counter(
    "dray_agent_fallbacks_total", "Mounts in place where a copy was wanted, by reason.", ("code",)
)
