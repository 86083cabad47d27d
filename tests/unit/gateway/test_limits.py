"""How much one user may ask: a bucket that fills steadily, and a count of streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.auth.identity import Principal
from services.gateway.limits import (
    MOST_REMEMBERED,
    Limits,
    TooManyRequestsError,
    TooManyStreamsError,
    counted_as,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_the_steady_rate() -> None:
    clock = Clock()
    limits = Limits(2, 5, 1, clock)
    for _ in range(5):
        limits.request("a")
    with pytest.raises(TooManyRequestsError) as caught:
        limits.request("a")
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
    limits.request("b")  # others have buckets of their own
    clock.now += 1
    limits.request("a")
    limits.request("a")
    with pytest.raises(TooManyRequestsError):
        limits.request("a")


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_never_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    clock = Clock()
    limits = Limits(3, 7, 1, clock)
    granted = 0
    for pause in pauses:
        clock.now += pause
        try:
            limits.request("a")
        except TooManyRequestsError:
            continue
        granted += 1
    assert granted <= 7 + 3 * (clock.now - Clock.now) + 1e-6


def test_who_waits_as_told_is_served() -> None:
    clock = Clock()
    limits = Limits(1, 1, 1, clock)
    limits.request("a")
    for _ in range(5):
        with pytest.raises(TooManyRequestsError) as caught:
            limits.request("a")
        clock.now += int(caught.value.headers["Retry-After"])
        limits.request("a")


def test_not_every_address_in_the_world_is_remembered() -> None:
    limits = Limits(1, 1, 1, Clock())
    for number in range(MOST_REMEMBERED + 100):
        limits.request(str(number))
    assert len(limits._buckets) == MOST_REMEMBERED
    with pytest.raises(TooManyRequestsError):
        limits.request(str(MOST_REMEMBERED + 99))


def test_streams_are_counted_while_they_are_open() -> None:
    limits = Limits(1, 1, 2, Clock())
    with limits.stream("a"):
        with limits.stream("a"), pytest.raises(TooManyStreamsError), limits.stream("a"):
            pass
        with limits.stream("a"), limits.stream("b"):
            pass
    assert not limits._streams


def test_a_user_is_one_by_whichever_way_and_the_public_by_address() -> None:
    by_socket = Principal("alice", frozenset(), "socket", 1000)
    by_token = Principal("alice", frozenset(), "token", 1000)
    assert counted_as(by_socket, None) == counted_as(by_token, "10.0.0.1") == "uid 1000"
    service = Principal("service:grafana", frozenset(), "token")
    assert counted_as(service, "10.0.0.1") == "service:grafana"
    public = Principal("anonymous", frozenset(), "nobody")
    assert counted_as(public, "10.0.0.1") == "10.0.0.1"
    assert counted_as(public, "2001:db8::1") == counted_as(public, "2001:db8::ffff:2")
    assert counted_as(public, "2001:db8:0:1::1") != counted_as(public, "2001:db8::1")
    assert counted_as(public, None) == "unknown address"
