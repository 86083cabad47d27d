"""Whatever order events come in, the state machine stays sound."""

from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.steps import MOST_STEPS, moved
from services.gateway.transitions import Changed
from shared.catalog.records import ImageRecord
from shared.events import (
    ImageChanged,
    ImageConverted,
    ImageUnchanged,
    PullFailed,
)
from shared.states import State
from tests.support.recipes import digest, small_recipe
from tests.support.transitions import (
    ASK,
    MACHINE,
    NOW,
    event_for,
    in_transfer,
    placed,
    progressed,
    requested,
)

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
        case "unchanged":
            same = event_for(speaks_of, ImageUnchanged, reference_digest=digest("a"))
            return MACHINE.unchanged(record, same, now)
        case "changed":
            moved = event_for(speaks_of, ImageChanged, reference_digest=digest("b"))
            return MACHINE.changed(record, moved, now)
        case "interrupted":
            return MACHINE.interrupted(record, now)
        case "request":
            return MACHINE.request(record, ASK, now)
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
        "unchanged",
        "changed",
        "interrupted",
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
            assert before.state not in {State.READY, State.EXPIRED}, "only a request leaves these"
        if after.attempt == before.attempt:
            assert after.state.rank >= before.state.rank
        assert after.attempt >= before.attempt
        assert after.current is not None or before.current is None, "an image never gets lost"
        assert after.state is not State.READY or after.current is not None
        if after.state is State.READY:
            assert after.failure is None
        if after.state is State.FAILURE:
            assert after.failure is not None
        assert after.due_at is not None, "everything is looked at again some time"
        if after.state is State.READY:
            assert after.due_at == after.expires_at
        check_time_line(before, after, now)
        history.append(after)


def check_time_line(before: ImageRecord, after: ImageRecord, now: datetime) -> None:
    """It is in order, repeats nothing, ends where the record is, and only ever grows."""
    steps = after.steps
    places = [(step.state, step.attempt) for step in steps]
    assert places[-1] == (after.state, after.attempt)
    assert all(one != other for one, other in pairwise(places))
    assert all(one.at <= other.at for one, other in pairwise(steps))
    assert len(steps) <= MOST_STEPS
    if after.pull_id != before.pull_id:
        assert [(step.state, step.at) for step in steps] == [(State.INIT, now)]
    elif len(before.steps) < MOST_STEPS:
        assert steps[: len(before.steps)] == before.steps
    if steps != before.steps:
        assert steps[-1].at == now


def test_a_time_line_is_bounded_and_keeps_its_beginning_and_its_end() -> None:
    record = requested()
    for turn in range(MOST_STEPS):
        state = State.CONVERSION if turn % 2 else State.PULLING
        record = moved(record, state, NOW + timedelta(seconds=turn))
    assert len(record.steps) == MOST_STEPS
    assert record.steps[0].state is State.INIT
    assert record.steps[-1].at == NOW + timedelta(seconds=MOST_STEPS - 1)


def test_a_clock_that_is_behind_makes_no_step_earlier_than_the_last_one() -> None:
    behind = moved(requested(), State.PULLING, NOW - timedelta(seconds=5))
    assert [step.at for step in behind.steps] == [NOW, NOW]


def test_a_pull_that_an_earlier_version_began_has_its_time_line_from_now_on() -> None:
    old = requested().model_dump(mode="json")
    del old["steps"]
    record = ImageRecord.model_validate(old)
    assert record.steps == ()
    change = MACHINE.progressed(record, progressed(record, State.PULLING), NOW)
    assert change is not None
    assert [step.state for step in change.record.steps] == [State.PULLING]
