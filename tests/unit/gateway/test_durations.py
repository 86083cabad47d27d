"""What the gateway counts of pulls and of nodes: each change once, with labels that stay few."""

from datetime import timedelta

import pytest

from services.gateway import durations
from services.gateway.durations import OTHER, node_answered, pull_changed
from shared.catalog.records import Failure, ImageRecord, StagingRecord, StagingState, staging_key
from shared.events import PullFailed
from shared.states import State
from tests.support.metrics import moved
from tests.support.transitions import (
    MACHINE,
    NOW,
    event_for,
    in_transfer,
    later,
    placed,
    progressed,
    requested,
    taken,
)


def stage(state: State) -> dict[str, str]:
    return {"state": state.value}


def staging(state: StagingState, code: str | None = None) -> StagingRecord:
    return StagingRecord(
        key=staging_key("1", "n1"),
        job_id="1",
        node="n1",
        announced_at=NOW,
        state=state,
        failure=None if code is None else Failure(code=code, message=""),
        seconds=None if code else 0.5,
    )


def test_each_state_counts_when_it_is_left() -> None:
    asked = requested()
    pulling = taken(MACHINE.progressed(asked, progressed(asked, State.PULLING), later(2)))
    further = taken(MACHINE.progressed(pulling, progressed(pulling, State.PULLING, 50), later(3)))
    failing = event_for(pulling, PullFailed, code="c", message="m", retryable=True)
    again = taken(MACHINE.failed(further, failing, later(7)))
    with (
        moved("dray_pull_stage_seconds_sum", stage(State.INIT), by=2),
        moved("dray_pull_stage_seconds_count", stage(State.INIT)),
        moved("dray_pull_stage_seconds_sum", stage(State.PULLING), by=5),
        moved("dray_pull_stage_seconds_count", stage(State.PULLING)),
        moved("dray_pull_seconds_count", {"outcome": "failed"}, by=0),
    ):
        pull_changed(None, asked)
        pull_changed(asked, pulling)
        pull_changed(pulling, further)
        pull_changed(further, again)


@pytest.mark.parametrize("outcome", ["placed", "failed"])
def test_a_pull_counts_from_its_request_to_its_end(outcome: str) -> None:
    record = in_transfer()
    if outcome == "placed":
        ended = taken(MACHINE.placed(record, placed(record), later(9)))
    else:
        failing = event_for(record, PullFailed, code="c", message="m", retryable=False)
        ended = taken(MACHINE.failed(record, failing, later(9)))
    ended = ended.model_copy(update={"updated_at": ended.requested_at + timedelta(seconds=9)})
    with (
        moved("dray_pull_seconds_sum", {"outcome": outcome}, by=9),
        moved("dray_pull_stage_seconds_sum", stage(State.TRANSFER), by=9),
    ):
        pull_changed(record, ended)
        pull_changed(ended, ended.but(pinned=True))


def test_a_pull_that_an_earlier_version_began_says_nothing_of_its_stages() -> None:
    record = requested()
    old: ImageRecord = record.model_copy(update={"steps": ()})
    moved_on = taken(MACHINE.progressed(old, progressed(old, State.PULLING), later(2)))
    with moved("dray_pull_stage_seconds_count", stage(State.INIT), by=0):
        pull_changed(old, moved_on)


def test_nodes_answers_are_counted_by_a_bounded_number_of_outcomes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durations, "_codes", {f"code_{number}" for number in range(31)})
    with (
        moved("dray_node_staging_seconds_sum", {"how": "IN_PLACE"}, by=0.5),
        moved("dray_node_stagings_total", {"outcome": "in_place"}),
        moved("dray_node_stagings_total", {"outcome": "the_last"}, by=2),
        moved("dray_node_stagings_total", {"outcome": OTHER}, by=2),
    ):
        node_answered(staging(StagingState.IN_PLACE))
        for code in ("the_last", "one_more", "the_last", "and_more"):
            node_answered(staging(StagingState.FAILED, code))
