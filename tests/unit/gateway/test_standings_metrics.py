"""Gauges of the site: what is known is told, with fixed labels; what is not known is not."""

from services.gateway.standing import gauges as standings_metrics
from services.gateway.standing.gauges import SITE, SiteGauges
from services.gateway.standing.worries import CODES
from shared.api import (
    JobsStanding,
    NodesStanding,
    Overview,
    QueueStanding,
    StageStanding,
    Worry,
)
from shared.models import utcnow
from shared.states import IN_FLIGHT
from tests.support.conditions import eventually

PULLS = {"dray_pulls", "dray_pulls_waiting", "dray_pulls_oldest_seconds"}
ALL = {gauge.name for gauge in SITE}


def overview(*codes: str, known: bool = True) -> Overview:
    return Overview(
        at=utcnow(),
        version="1",
        worries=tuple(Worry(code=code, level="warning", message="") for code in codes),
        stages=tuple(
            StageStanding(state=state, pulls=4, waiting=3, oldest_seconds=2.5)
            for state in IN_FLIGHT
        ),
        failed=7,
        queues=(QueueStanding(name="q", waiting=5, consumers=0, oldest_seconds=None),)
        if known
        else None,
        dead_letters=0 if known else None,
        nodes=NodesStanding(alive=9, lost=1) if known else None,
        jobs=JobsStanding(running=2, nodes=20, pending=3, failed=0, lost=1) if known else None,
    )


def told(gauges: SiteGauges) -> dict[str, dict[str, float]]:
    return {
        family.name: {",".join(each.labels.values()): each.value for each in family.samples}
        for family in gauges.collect()
    }


def test_what_is_known_is_told() -> None:
    gauges = SiteGauges()
    assert told(gauges) == {}
    gauges.show(overview("no_converter"))
    found = told(gauges)
    assert found.keys() == ALL
    assert found["dray_queue_events"] == {"q": 5}
    assert found["dray_queue_consumers"] == {"q": 0}
    assert found["dray_dead_letters"] == {"": 0}
    assert found["dray_pulls"] == {**{state.value: 4.0 for state in IN_FLIGHT}, "FAILURE": 7}
    assert found["dray_pulls_oldest_seconds"]["INIT"] == 2.5
    assert found["dray_nodes"] == {"alive": 9, "lost": 1}
    assert found["dray_jobs_running"] == {"": 2}
    assert found["dray_job_nodes"] == {"pending": 3, "failed": 0, "lost": 1}
    assert found["dray_worries"] == {code: float(code == "no_converter") for code in CODES}
    gauges.forget()
    assert told(gauges) == {}


def test_what_is_not_known_disappears() -> None:
    gauges = SiteGauges()
    gauges.show(overview("bus_away", known=False))
    assert told(gauges).keys() == {*PULLS, "dray_worries"}
    gauges.show(overview("catalog_away", known=False))
    assert told(gauges).keys() == {"dray_worries"}


async def test_what_nobody_refreshes_disappears() -> None:
    gauges = SiteGauges()
    gauges.show(overview())
    gauges._seen_at -= standings_metrics.STALE_SECONDS - 0.2
    assert told(gauges).keys() == ALL
    await eventually(lambda: told(gauges) == {}, within=5)
