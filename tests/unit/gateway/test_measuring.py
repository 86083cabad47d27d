"""Our histogram of requests says what the client library's own would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from services.gateway.measuring import Kind, RequestTimes

BOUNDS = (0.001, 0.25, 1, 30)
KINDS: tuple[Kind, ...] = (("/a", "GET", "200", "nobody"), ("unknown", "GET", "gone", "unknown"))


def test_nothing_is_shown_of_what_nobody_asked() -> None:
    registry = CollectorRegistry()
    registry.register(RequestTimes("times", "How long.", BOUNDS))
    assert [line for line in generate_latest(registry).splitlines() if line[:1] != b"#"] == []


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from((*BOUNDS, 0.0005, 0.5, 99)))))
def test_it_shows_what_a_usual_histogram_shows(noted: list[tuple[Kind, float]]) -> None:
    ours, usual = CollectorRegistry(), CollectorRegistry()
    times = RequestTimes("times", "How long.", BOUNDS)
    ours.register(times)
    labels = ("route", "method", "status", "via")
    histogram = Histogram("times", "How long.", labels, registry=usual, buckets=BOUNDS)
    for kind, seconds in noted:
        times.note(kind, seconds)
        histogram.labels(*kind).observe(seconds)
    assert _samples(ours) == _samples(usual)


def _samples(registry: CollectorRegistry) -> set[bytes]:
    lines = generate_latest(registry).splitlines()
    return {line for line in lines if b"_created" not in line}
