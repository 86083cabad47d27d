"""Numbers and texts in events: what no node or worker means is refused before it is written down.

A record that holds an infinite number is stored as JSON without it, and cannot be read again.
"""

import json
from typing import Any

import pytest

from shared.catalog.records import Progress
from shared.events import JobEntered, MalformedEventError, decode_event

OF_A_NODE = {"correlation_id": "17", "node": "n1", "job_id": "17"}
STAGED = {**OF_A_NODE, "type": "node.staged", "seconds": 1.5}
HEARTBEAT = {
    "correlation_id": "n1",
    "type": "node.heartbeat",
    "node": "n1",
    "system": "local",
    "kernel": "6.1",
    "mounter": "kernel",
    "codecs": ["zstd"],
    "mounts": 3,
}
PROGRESS = {
    "correlation_id": "pull-1",
    "type": "pull.progressed",
    "key": "local/docker/docker.io/library/alpine:3",
    "attempt": 1,
    "stage": "PULLING",
}
ROOM = {"correlation_id": "s", "type": "storage.reported", "system": "local", "free_bytes": 1}


@pytest.mark.parametrize("event", [STAGED, HEARTBEAT, PROGRESS, ROOM], ids=lambda e: e["type"])
def test_what_is_meant_is_taken(event: dict[str, Any]) -> None:
    assert decode_event(json.dumps(event).encode()).type == event["type"]


@pytest.mark.parametrize(
    ("event", "field", "value"),
    [
        (STAGED, "seconds", float("inf")),
        (STAGED, "seconds", float("nan")),
        (STAGED, "seconds", 1e308),
        (PROGRESS, "rate", float("inf")),
        (PROGRESS, "rate", float("nan")),
        (PROGRESS, "rate", 1e308),
        (PROGRESS, "done", 1 << 63),
        (HEARTBEAT, "mounts", 10**400),
        (HEARTBEAT, "codecs", ["z" * 65]),
        (ROOM, "free_bytes", 1 << 63),
        (ROOM, "counted", {"items": 1, "bytes": 10**400}),
    ],
    ids=lambda value: str(value)[:16],
)
def test_what_nobody_means_is_refused(event: dict[str, Any], field: str, value: object) -> None:
    with pytest.raises(MalformedEventError, match=field):
        decode_event(json.dumps({**event, field: value}).encode())


@pytest.mark.parametrize("event", [HEARTBEAT, PROGRESS], ids=lambda e: e["type"])
def test_what_comes_all_the_time_is_in_no_trace(event: dict[str, Any]) -> None:
    traced = {**event, "trace": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    assert decode_event(json.dumps(traced).encode()).trace is None


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -1.0])
def test_a_first_rank_was_some_time_ago(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds_ago"):
        JobEntered(job_id="17", seconds_ago=seconds)


def test_progress_that_is_stored_can_be_read_again() -> None:
    with pytest.raises(ValueError, match="rate"):
        Progress.model_validate({"stage": "PULLING", "rate": float("inf")})
    told = Progress.model_validate({"stage": "PULLING", "rate": float((1 << 63) - 2048)})
    assert Progress.model_validate_json(told.model_dump_json()) == told
