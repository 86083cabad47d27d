"""The time line of a pull: which states it went through, written with each change of state."""

from datetime import datetime
from typing import Final

from shared.catalog.records import ImageRecord, PullStep
from shared.states import State

MOST_STEPS: Final = 40
FIRST_STEPS: Final = 10
"""Of a pull that has more, these and the last ones are kept."""


def first_step(state: State, attempt: int, now: datetime) -> tuple[PullStep, ...]:
    """Where a pull begins."""
    return (PullStep(state=state, at=now, attempt=attempt),)


def moved(record: ImageRecord, state: State, now: datetime, **changes: object) -> ImageRecord:
    """The record in this state, with its time line; `changes` may have another attempt."""
    after = record.but(state=state, **changes)
    return after.model_copy(update={"steps": _longer(record.steps, state, after.attempt, now)})


def _longer(
    steps: tuple[PullStep, ...], state: State, attempt: int, now: datetime
) -> tuple[PullStep, ...]:
    if not steps:
        return first_step(state, attempt, now)
    last = steps[-1]
    if (last.state, last.attempt) == (state, attempt):
        return steps
    # Gateways' clocks differ, and nothing comes before what led to it.
    steps = (*steps, PullStep(state=state, at=max(now, last.at), attempt=attempt))
    if len(steps) > MOST_STEPS:
        steps = steps[:FIRST_STEPS] + steps[FIRST_STEPS - MOST_STEPS :]
    return steps
