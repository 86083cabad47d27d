"""Whatever order events come in, the state machine stays sound."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

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
        history.append(after)
