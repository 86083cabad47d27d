"""How thousands of agents come back to a broker that was away."""

from collections import Counter

from shared.bus.rabbitmq_link import Link

AGENTS = 10_000


def test_ten_thousand_agents_spread_evenly_over_their_window() -> None:
    link = Link("amqp://127.0.0.1:1/", "agent", 10.0)
    for failures in (0, 5):  # also those who found nobody yet
        seconds = Counter(int(link._delay(failures)) for _ in range(AGENTS))
        assert set(seconds) == set(range(10))
        assert max(seconds.values()) < 1.3 * AGENTS / 10


def test_a_gateway_comes_back_at_once() -> None:
    link = Link("amqp://127.0.0.1:1/", "gateway")
    assert max(link._delay(0) for _ in range(1000)) <= 0.1
