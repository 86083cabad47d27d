"""Records in each state, and events about them, for tests of the state machine."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from services.gateway.transitions import PullTarget, Request, Transitions
from shared.catalog.interface import Change
from shared.catalog.records import ImageRecord
from shared.events import (
    ImageConverted,
    ImagePlaced,
    PullEvent,
    PullProgressed,
)
from shared.settings.gateway import PullSettings
from shared.settings.site import SystemSettings
from shared.states import State
from tests.support.recipes import small_recipe

E = TypeVar("E", bound=PullEvent)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = PullTarget("cluster", "docker", "docker.io/library/debian:12")
ASK = Request(TARGET, "ada")
RULES = PullSettings(lease=60, queue_timeout=600, max_tries=3, fresh_for=0)
MACHINE = Transitions(RULES, {"cluster": SystemSettings(image_dir=Path("/images"))})


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def taken(change: Change[ImageRecord] | None) -> ImageRecord:
    assert change is not None
    return change.record


def requested() -> ImageRecord:
    return taken(MACHINE.request(None, ASK, NOW))


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
        content_digest="c" * 64,
        size=8192,
    )


def in_transfer() -> ImageRecord:
    record = requested()
    event = event_for(record, ImageConverted, recipe=small_recipe())
    return taken(MACHINE.converted(record, event, NOW))


def ready() -> ImageRecord:
    record = in_transfer()
    return taken(MACHINE.placed(record, placed(record), NOW))
