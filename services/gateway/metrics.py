"""What the gateway counts for Prometheus, beside what every service does; see docs/metrics.md.

No label ever holds a user, an image, a node, or anything else that a client can make up.
"""

from prometheus_client import REGISTRY, Counter, Gauge

from services.gateway.measuring import RequestTimes

REQUESTS = RequestTimes(
    "dray_http_request_seconds",
    "Time to answer a request, by route, method, status and how it was known who asks.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
)
REGISTRY.register(REQUESTS)
STREAMS = Gauge("dray_http_streams", "Streams of events that are being followed, and exports.")
EXPORTS = Counter("dray_exports_total", "Transfers of images' files that ended.", ("outcome",))
EXPORTED_BYTES = Counter("dray_exported_bytes_total", "Bytes of images that were sent.")
NOT_LET_IN = Counter(
    "dray_not_let_in_total",
    "Requests of those who could not prove who they are, or may not do this, by error code.",
    ("code",),
)
LOOKUPS = Counter("dray_lookups_total", "Lookups that found an image.")
PULLS = Counter("dray_pulls_total", "Pulls that ended, by outcome.", ("outcome",))
# From 0, so that the first one is seen as a rise.
for _outcome in ("placed", "unchanged", "failed"):
    PULLS.labels(_outcome)
LOGINS = Counter("dray_logins_total", "Logins that a registry was asked about.", ("outcome",))
USAGE_FLUSHED = Counter("dray_usage_flushed_total", "Documents of usage that were written.")
USAGE_DROPPED = Counter("dray_usage_dropped_total", "Uses that were not counted.")
USAGE_WAITING = Gauge("dray_usage_waiting", "Documents of usage that a flush left waiting.")
USAGE_FORGOTTEN = Counter("dray_usage_forgotten_total", "Documents of usage that were too old.")
