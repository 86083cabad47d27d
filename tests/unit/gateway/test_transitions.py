"""The state machine: what each event does, and everything that must do nothing."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.transitions import Changed, PullTarget, Transitions
from shared.catalog.interface import Change
from shared.catalog.records import ImageRecord
from shared.config import PullSettings, SystemSettings
from shared.events import (
    ImageChanged,
    ImageConverted,
    ImagePlaced,
    ImageUnchanged,
    PlacementRequested,
    PullEvent,
    PullFailed,
    PullProgressed,
    PullRequested,
    RefreshRequested,
)
from shared.states import State
from tests.support.recipes import digest, small_recipe

E = TypeVar("E", bound=PullEvent)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = PullTarget("cluster", "docker", "docker.io/library/debian:12")
RULES = PullSettings(lease=60, queue_timeout=600, max_tries=3)
MACHINE = Transitions(RULES, {"cluster": SystemSettings(image_dir=Path("/images"))})


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def taken(change: Change[ImageRecord] | None) -> ImageRecord:
    assert change is not None
    return change.record


def requested() -> ImageRecord:
    return taken(MACHINE.request(None, TARGET, "ada", NOW))


def event_for(record: ImageRecord, kind: type[E], **fields: object) -> E:
    given_fields: dict[str, object] = {
        "correlation_id": record.pull_id,
        "key": record.key,
        "attempt": record.attempt,
        **fields,
    }
    return kind.model_validate(given_fields)


def progressed(record: ImageRecord, stage: State, done: int = 0) -> PullProgressed:
    return event_for(record, PullProgressed, stage=stage, done=done, total=100)


def placed(record: ImageRecord, image: str = "a") -> ImagePlaced:
    return event_for(
        record,
        ImagePlaced,
        system="cluster",
        image_id=image * 64,
        sha256="c" * 64,
        size=8192,
    )


def in_transfer() -> ImageRecord:
    record = requested()
    event = event_for(record, ImageConverted, recipe=small_recipe())
    return taken(MACHINE.converted(record, event, NOW))


def ready() -> ImageRecord:
    record = in_transfer()
    return taken(MACHINE.placed(record, placed(record), NOW))


def test_a_first_request_asks_a_converter() -> None:
    change = MACHINE.request(None, TARGET, "ada", NOW)
    assert change is not None
    assert (change.record.state, change.record.attempt) == (State.INIT, 1)
    assert change.record.due_at == later(60)
    (event,) = change.events
    assert isinstance(event, PullRequested)
    assert (event.key, event.attempt) == (TARGET.key, 1)
    assert event.correlation_id == change.record.pull_id


@pytest.mark.parametrize("stage", [State.INIT, State.PULLING, State.CONVERSION])
def test_a_second_request_joins_a_pull_under_way(stage: State) -> None:
    assert MACHINE.request(requested().but(state=stage), TARGET, "bob", NOW) is None


def test_the_way_to_ready() -> None:
    record = requested()
    for stage in (State.PULLING, State.CONVERSION):
        record = taken(MACHINE.progressed(record, progressed(record, stage), later(1)))
        assert record.state is stage
    change = MACHINE.converted(
        record, event_for(record, ImageConverted, recipe=small_recipe()), later(2)
    )
    record = taken(change)
    assert record.state is State.TRANSFER
    assert change is not None
    assert isinstance(change.events[0], PlacementRequested)
    record = taken(MACHINE.placed(record, placed(record), later(3)))
    assert record.state is State.READY
    assert record.current is not None
    assert (record.image_id, record.current.sha256) == ("a" * 64, "c" * 64)
    assert (record.due_at, record.recipe, record.progress) == (None, None, None)


def test_progress_within_an_attempt_only_moves_forward() -> None:
    record = requested()
    record = taken(MACHINE.progressed(record, progressed(record, State.CONVERSION, 80), NOW))
    late = taken(MACHINE.progressed(record, progressed(record, State.PULLING, 99), later(5)))
    assert late.state is State.CONVERSION
    assert late.progress == record.progress
    assert late.due_at == later(65), "a worker that speaks keeps its lease, whatever it says"
    behind = taken(MACHINE.progressed(record, progressed(record, State.CONVERSION, 10), NOW))
    assert behind.progress == record.progress


def test_transfer_is_not_entered_or_left_by_progress() -> None:
    record = requested()
    assert MACHINE.progressed(record, progressed(record, State.TRANSFER), NOW) is None
    moved = in_transfer()
    assert MACHINE.progressed(moved, progressed(moved, State.CONVERSION), NOW) is None
    kept = taken(MACHINE.progressed(moved, progressed(moved, State.TRANSFER, 7), NOW))
    assert kept.progress is not None
    assert kept.progress.done == 7


def test_a_ready_image_is_checked_and_stays_usable_meanwhile() -> None:
    record = ready()
    change = MACHINE.request(record, TARGET, "bob", later(10))
    assert change is not None
    (event,) = change.events
    assert isinstance(event, RefreshRequested)
    assert event.known_digest == digest("a")
    assert change.record.current == record.current
    assert change.record.attempt == record.attempt + 1

    same = event_for(change.record, ImageUnchanged, reference_digest=digest("a"))
    answered = taken(MACHINE.unchanged(change.record, same, later(11)))
    assert (answered.state, answered.last_pull) == (State.READY, later(11))
    assert answered.current == record.current

    other = event_for(change.record, ImageUnchanged, reference_digest=digest("d"))
    assert MACHINE.unchanged(change.record, other, later(11)) is None

    moved = event_for(change.record, ImageChanged, reference_digest=digest("d"))
    again = MACHINE.changed(change.record, moved, later(11))
    assert again is not None
    assert again.record.state is State.INIT
    assert isinstance(again.events[0], PullRequested)


def test_a_failed_pull_can_be_tried_again_at_once() -> None:
    record = requested()
    failed = event_for(record, PullFailed, code="image_not_found", message="no such tag")
    ended = taken(MACHINE.failed(record, failed, NOW))
    assert ended.state is State.FAILURE
    assert ended.failure is not None
    assert ended.failure.message == "no such tag"
    again = MACHINE.request(ended, TARGET, "ada", NOW)
    assert again is not None
    assert (again.record.state, again.record.failure) == (State.INIT, None)
    assert again.record.attempt == 2
    assert again.record.pull_id != ended.pull_id


def test_what_may_pass_is_tried_again_up_to_the_limit() -> None:
    record = requested()
    for tries in range(1, RULES.max_tries):
        failed = event_for(record, PullFailed, code="busy", message="429", retryable=True)
        change = MACHINE.failed(record, failed, NOW)
        assert change is not None
        assert isinstance(change.events[0], PullRequested)
        record = change.record
        assert (record.state, record.tries) == (State.INIT, tries + 1)
    failed = event_for(record, PullFailed, code="busy", message="429", retryable=True)
    assert taken(MACHINE.failed(record, failed, NOW)).state is State.FAILURE


def test_a_quiet_worker_is_replaced_and_the_pull_ends_with_a_reason() -> None:
    record = requested()
    record = taken(MACHINE.progressed(record, progressed(record, State.PULLING), NOW))
    assert MACHINE.gone_quiet(record, later(59)) is None
    for _ in range(1, RULES.max_tries):
        old = record
        record = taken(MACHINE.gone_quiet(record, later(1000)))
        assert (record.state, record.attempt) == (State.INIT, old.attempt + 1)
        assert MACHINE.progressed(record, progressed(old, State.PULLING), NOW) is None
        record = taken(MACHINE.progressed(record, progressed(record, State.PULLING), NOW))
    ended = taken(MACHINE.gone_quiet(record, later(1000)))
    assert ended.state is State.FAILURE
    assert ended.failure is not None
    assert ended.failure.code == "worker_lost"
    assert record.pull_id in ended.failure.message


def test_a_quiet_transfer_is_placed_again_without_converting_again() -> None:
    change = MACHINE.gone_quiet(in_transfer(), later(1000))
    assert change is not None
    assert (change.record.state, change.record.attempt) == (State.TRANSFER, 2)
    (event,) = change.events
    assert isinstance(event, PlacementRequested)
    assert event.attempt == 2


def test_waiting_for_a_converter_is_asked_again_ever_more_rarely_and_ends() -> None:
    record = requested()
    waits = []
    now = NOW
    for _ in range(20):
        assert record.due_at is not None
        waits.append((record.due_at - now).total_seconds())
        now = record.due_at
        change = MACHINE.gone_quiet(record, now)
        assert change is not None
        record = change.record
        if record.state is State.FAILURE:
            break
        assert record.attempt == 1, "a pull that waits in a queue is not lost"
        assert isinstance(change.events[0], PullRequested)
    assert waits == sorted(waits)
    assert record.failure is not None
    assert record.failure.code == "no_converter"
    assert now >= later(600)


def test_a_bus_that_forgot_is_told_again_of_what_was_in_flight() -> None:
    record = requested()
    change = MACHINE.interrupted(record, later(1))
    assert change is not None
    assert isinstance(change.events[0], PullRequested)
    assert MACHINE.interrupted(ready(), later(1)) is None


def test_a_pull_that_every_restart_interrupts_ends_and_says_so() -> None:
    record = requested()
    for tries in range(2, RULES.max_tries + 1):
        record = taken(MACHINE.progressed(record, progressed(record, State.PULLING), NOW))
        record = taken(MACHINE.interrupted(record, later(1)))
        assert (record.state, record.tries) == (State.INIT, tries)
    record = taken(MACHINE.progressed(record, progressed(record, State.PULLING), NOW))
    ended = taken(MACHINE.interrupted(record, later(1)))
    assert ended.failure is not None
    assert ended.failure.code == "interrupted"
    assert "3 times" in ended.failure.message


@pytest.mark.parametrize("wrong", ["attempt", "image", "state"])
def test_a_placement_that_is_not_ours_changes_nothing(wrong: str) -> None:
    record = in_transfer()
    if wrong == "attempt":
        event = placed(record.but(attempt=7))
    elif wrong == "image":
        event = placed(record, image="e")
    else:
        event, record = placed(record), ready()
    assert MACHINE.placed(record, event, NOW) is None


ANY_STATE = st.sampled_from(list(State))


@given(state=ANY_STATE, skew=st.integers(1, 5), stage=ANY_STATE)
def test_events_of_another_attempt_or_of_no_record_change_nothing(
    state: State, skew: int, stage: State
) -> None:
    record = in_transfer().but(state=state, attempt=10)
    stale = record.but(attempt=10 - skew)
    for known in (record, None):
        assert MACHINE.progressed(known, progressed(stale, stage), NOW) is None
        converted = event_for(stale, ImageConverted, recipe=small_recipe())
        assert MACHINE.converted(known, converted, NOW) is None
        assert MACHINE.placed(known, placed(stale), NOW) is None
        failed = event_for(stale, PullFailed, code="x", message="y", retryable=True)
        assert MACHINE.failed(known, failed, NOW) is None
        same = event_for(stale, ImageUnchanged, reference_digest=digest("a"))
        assert MACHINE.unchanged(known, same, NOW) is None
        assert (
            MACHINE.changed(
                known, event_for(stale, ImageChanged, reference_digest=digest("a")), NOW
            )
            is None
        )


def step_on(record: ImageRecord, step: str, speaks_of: ImageRecord, now: datetime) -> Changed:
    """One event, made when the record was as `speaks_of`, arriving now."""
    match step:
        case "pulling" | "conversion" | "transfer":
            return MACHINE.progressed(record, progressed(speaks_of, State(step.upper())), now)
        case "converted":
            event = event_for(speaks_of, ImageConverted, recipe=small_recipe())
            return MACHINE.converted(record, event, now)
        case "placed":
            return MACHINE.placed(record, placed(speaks_of), now)
        case "failed" | "retry":
            again = step == "retry"
            failed = event_for(speaks_of, PullFailed, code="c", message="m", retryable=again)
            return MACHINE.failed(record, failed, now)
        case "request":
            return MACHINE.request(record, TARGET, "ada", now)
        case _:
            return MACHINE.gone_quiet(record, now)


STEP = st.sampled_from(
    [
        "pulling",
        "conversion",
        "transfer",
        "converted",
        "placed",
        "failed",
        "retry",
        "quiet",
        "request",
    ]
)


@given(st.lists(st.tuples(STEP, st.integers(0, 3)), max_size=30))
def test_any_order_of_events_keeps_the_record_sound(steps: list[tuple[str, int]]) -> None:
    """Doubled, late and reordered: attempts never shrink, ends are ends, READY has an image."""
    history = [requested()]
    now = NOW
    for step, age in steps:
        now += timedelta(seconds=30)
        before = history[-1]
        change = step_on(before, step, history[max(0, len(history) - 1 - age)], now)
        if change is None:
            continue
        after = change.record
        if step == "request":
            assert not before.state.in_flight, "a pull under way is joined"
            assert after.attempt == before.attempt + 1
        else:
            assert before.state.in_flight, "nothing but a request leaves an end"
        if after.attempt == before.attempt:
            assert after.state.rank >= before.state.rank
        assert after.attempt >= before.attempt
        assert after.current is not None or before.current is None, "an image never gets lost"
        assert after.state is not State.READY or after.current is not None
        assert (after.failure is not None) == (after.state is State.FAILURE)
        assert (after.due_at is None) == (not after.state.in_flight)
        history.append(after)
