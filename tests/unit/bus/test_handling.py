"""What surrounds a handler is measured: how long it took, and how long its event had waited."""

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from shared.bus.handling import dispatch
from shared.events import AnyEvent, JobReleased
from shared.models import utcnow
from tests.support.bus import released


async def nothing(_event: AnyEvent) -> None:
    """All there is to do."""


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"type": "job.released", **labels}) or 0.0


@pytest.mark.parametrize(("age", "waited"), [(90.0, 90.0), (-90.0, 0.0)])
async def test_how_long_an_event_has_waited_is_measured(age: float, waited: float) -> None:
    """A clock that is ahead makes no negative wait."""
    name = "dray_event_waiting_seconds"
    sums, counts = value(f"{name}_sum"), value(f"{name}_count")
    event = released("n1").model_copy(update={"time": utcnow() - timedelta(seconds=age)})

    await dispatch({JobReleased: nothing})(event)

    assert value(f"{name}_count") == counts + 1
    assert value(f"{name}_sum") - sums == pytest.approx(waited, abs=30 if waited else 0)
    assert value(f"{name}_sum") >= sums
    done = {"outcome": "done"}
    assert value("dray_events_handled_total", **done) > 0
