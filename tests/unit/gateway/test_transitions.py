"""The state machine: what each event does, and everything that must do nothing."""

from datetime import timedelta
from pathlib import Path

import pytest

from services.gateway.expiring import by_digest, dismissed, kept
from services.gateway.transitions import Request, Transitions
from shared.events import (
    ImageChanged,
    ImageConverted,
    ImageUnchanged,
    PlacementRequested,
    PullFailed,
    PullRequested,
    RefreshRequested,
)
from shared.image.recipe import PackOptions
from shared.settings.site import SystemSettings
from shared.states import State
from tests.support.recipes import digest, small_recipe
from tests.support.transitions import (
    ASK,
    MACHINE,
    NOW,
    RULES,
    TARGET,
    event_for,
    in_transfer,
    later,
    placed,
    progressed,
    ready,
    requested,
    taken,
)


def test_a_first_request_asks_a_converter() -> None:
    change = MACHINE.request(None, ASK, NOW)
    assert change is not None
    assert (change.record.state, change.record.attempt) == (State.INIT, 1)
    assert change.record.due_at == later(60)
    (event,) = change.events
    assert isinstance(event, PullRequested)
    assert (event.key, event.attempt) == (TARGET.key, 1)
    assert event.correlation_id == change.record.pull_id


@pytest.mark.parametrize("stage", [State.INIT, State.PULLING, State.CONVERSION])
def test_a_second_request_joins_a_pull_under_way(stage: State) -> None:
    assert MACHINE.request(requested().but(state=stage), ASK, NOW) is None


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
    assert (record.image_id, record.current.content_digest) == ("a" * 64, "c" * 64)
    assert (record.due_at, record.recipe, record.progress) == (record.expires_at, None, None)


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
    change = MACHINE.request(record, ASK, later(10))
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
    again = MACHINE.request(ended, ASK, NOW)
    assert again is not None
    assert (again.record.state, again.record.failure) == (State.INIT, None)
    assert again.record.attempt == 2
    assert again.record.pull_id != ended.pull_id


def test_what_may_pass_is_tried_again_after_growing_pauses_up_to_the_limit() -> None:
    record = requested()
    now = NOW
    pauses = []
    for tries in range(1, RULES.max_tries):
        failed = event_for(record, PullFailed, code="busy", message="429", retryable=True)
        change = MACHINE.failed(record, failed, now)
        assert change is not None
        record = change.record
        assert change.events == (), "a registry that restarts needs a moment"
        assert (record.state, record.tries) == (State.INIT, tries + 1)
        assert record.failure is not None
        assert record.failure.message == "429", "whoever waits sees why"
        assert record.due_at is not None
        pauses.append((record.due_at - now).total_seconds())
        assert MACHINE.gone_quiet(record, now) is None
        now = record.due_at
        change = MACHINE.gone_quiet(record, now)
        assert change is not None
        assert isinstance(change.events[0], PullRequested)
        record = change.record
    assert pauses == [1, 2]
    failed = event_for(record, PullFailed, code="busy", message="429", retryable=True)
    assert taken(MACHINE.failed(record, failed, now)).state is State.FAILURE


def test_a_placement_that_failed_begins_again_with_the_packs() -> None:
    """A pack that is gone or damaged can only be made again by a converter."""
    record = in_transfer()
    failed = event_for(record, PullFailed, code="pack_corrupt", message="m", retryable=True)
    again = taken(MACHINE.failed(record, failed, NOW))
    assert (again.state, again.recipe) == (State.INIT, None)


def test_a_forced_pull_or_other_options_make_the_image_again() -> None:
    record = ready()
    forced = MACHINE.request(record, Request(TARGET, "ada", force=True), later(1))
    assert forced is not None
    assert isinstance(forced.events[0], PullRequested)
    assert forced.record.current == record.current

    system = SystemSettings(image_dir=Path("/images"), pack=PackOptions(compression="gzip"))
    change = Transitions(RULES, {"cluster": system}).request(record, ASK, later(1))
    assert change is not None
    (event,) = change.events
    assert isinstance(event, PullRequested), "an unchanged reference would hide the new options"
    assert event.options.compression == "gzip"

    system = SystemSettings(image_dir=Path("/images"), max_dead_share=0.5)
    change = Transitions(RULES, {"cluster": system}).request(record, ASK, later(1))
    assert change is not None
    (event,) = change.events
    assert isinstance(event, PullRequested)
    assert event.max_dead_share == 0.5


def test_a_failure_is_news_for_a_day() -> None:
    for before, settled in ((requested(), State.EXPIRED), (ready(), State.READY)):
        record = before
        if not record.state.in_flight:
            record = taken(MACHINE.request(record, ASK, NOW))
        failed = event_for(record, PullFailed, code="c", message="m")
        failure = taken(MACHINE.failed(record, failed, NOW))
        assert MACHINE.gone_quiet(failure, later(86_399)) is None
        forgotten = taken(MACHINE.gone_quiet(failure, later(86_400)))
        assert (forgotten.state, forgotten.failure) == (settled, None)
        assert forgotten.current == before.current


def test_each_try_may_wait_as_long_as_the_first() -> None:
    """A try that fails after hours of work must not be blamed on absent converters."""
    record = taken(MACHINE.progressed(requested(), progressed(requested(), State.PULLING), NOW))
    failed = event_for(record, PullFailed, code="busy", message="m", retryable=True)
    record = taken(MACHINE.failed(record, failed, later(5 * 3600)))
    assert record.due_at is not None
    again = taken(MACHINE.gone_quiet(record, record.due_at))
    assert again.state is State.INIT


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
    record = in_transfer()
    begun = taken(MACHINE.progressed(record, progressed(record, State.TRANSFER), NOW))
    change = MACHINE.gone_quiet(begun, later(1000))
    assert change is not None
    assert (change.record.state, change.record.attempt) == (State.TRANSFER, 2)
    (event,) = change.events
    assert isinstance(event, PlacementRequested)
    assert event.attempt == 2


def test_waiting_for_a_distributor_is_no_loss_either() -> None:
    change = MACHINE.gone_quiet(in_transfer(), later(61))
    assert change is not None
    assert (change.record.state, change.record.attempt) == (State.TRANSFER, 1)
    assert isinstance(change.events[0], PlacementRequested)
    ended = taken(MACHINE.gone_quiet(in_transfer(), later(601)))
    assert ended.failure is not None
    assert ended.failure.code == "no_distributor"


def test_a_system_that_the_settings_dropped_ends_its_pulls() -> None:
    elsewhere = Transitions(RULES, {"other": SystemSettings(image_dir=Path("/images"))})
    for change in (
        elsewhere.gone_quiet(requested(), later(61)),
        elsewhere.interrupted(in_transfer(), NOW),
    ):
        ended = taken(change)
        assert ended.failure is not None
        assert ended.failure.code == "unknown_system"


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


def test_what_a_tag_moves_away_from_stays_under_its_digest() -> None:
    record = ready().but(pinned=True, owner=7, private=True, state=State.TRANSFER)
    old = by_digest(record)
    assert old is not None
    assert (old.reference, old.owner, old.private) == (
        f"docker.io/library/debian@sha256:{'a' * 64}",
        7,
        True,
    )
    assert (old.state, old.image_id, old.pinned) == (State.READY, "a" * 64, False)
    stored = taken(kept(None, old, 90))
    assert stored.due_at == stored.expires_at == old.last_pull + timedelta(days=90)
    assert kept(stored, old, 90) is None, "it stands for something, perhaps something newer"
    again = taken(kept(taken(dismissed(stored.but(version=3), NOW)), old, 90))
    assert (again.version, again.state, again.leaving) == (3, State.READY, None)
    failed = requested().but(state=State.FAILURE, key=old.key, version=4)
    again = taken(kept(failed, old, 90))
    assert (again.version, again.state, again.failure) == (4, State.READY, None), (
        "it stands for nothing"
    )
    assert kept(requested(), old, 90) is None
    assert by_digest(old) is None, "a digest does not move"
    assert by_digest(requested()) is None


def test_a_doubled_word_on_the_size_does_not_fail_what_is_being_placed() -> None:
    record = requested()
    refused = event_for(record, PullFailed, code="quota_exceeded", message="no", retryable=False)
    assert taken(MACHINE.refused(record, refused, NOW)).state is State.FAILURE
    assert MACHINE.refused(in_transfer(), refused, NOW) is None
