"""What a span is part of, with whoever keeps spans, and without."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import tracing
from shared.errors import NotFoundError
from shared.events import JobReleased, decode_event, encode_event

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@dataclass
class Kept:
    """A span that a test looks at."""

    service: str
    name: str
    parent: str | None
    traceparent: str
    notes: dict[str, object] = field(default_factory=dict)
    failures: list[str | None] = field(default_factory=list)

    def note(self, attributes: tracing.Attributes) -> None:
        self.notes |= attributes

    def end(self, failure: str | None) -> None:
        self.failures.append(failure)


class Keeper:
    """Keeps spans, and counts them instead of drawing ids."""

    def __init__(self) -> None:
        self.spans: list[Kept] = []

    def begin(
        self,
        service: str,
        name: str,
        kind: tracing.Kind,
        parent: str | None,
        attributes: tracing.Attributes,
    ) -> Kept:
        trace = tracing.trace_id(parent) if parent else "c" * 32
        made = Kept(service, name, parent, f"00-{trace}-{len(self.spans) + 1:016x}-01")
        made.note(attributes)
        self.spans.append(made)
        return made


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper()
    tracing.recorded_by(keeper)
    yield keeper
    tracing.recorded_by(None)


def test_spans_are_nested_and_end_with_the_body(keeper: Keeper) -> None:
    with tracing.span("pull", parent=TRACE) as outer:
        with tracing.span("layer", attributes={"dray.bytes": 7}) as inner:
            inner.note({"dray.reused": True})
            assert tracing.current() == inner.traceparent
        assert tracing.current() == outer.traceparent
    assert tracing.current() is None
    first, second = keeper.spans
    assert (first.parent, second.parent) == (TRACE, outer.traceparent)
    assert second.notes == {"dray.bytes": 7, "dray.reused": True}
    assert (first.failures, second.failures) == ([None], [None])


def test_what_nobody_asked_for_has_no_trace(keeper: Keeper) -> None:
    with tracing.span("heartbeat"):
        assert tracing.current() is None
    assert keeper.spans == []
    with tracing.span("POST /pulls", root=True):
        assert tracing.current() is not None
    assert keeper.spans[0].parent is None


def test_without_a_recorder_a_trace_is_passed_on() -> None:
    with tracing.span("pull", parent=TRACE) as span:
        assert tracing.current() == span.traceparent == TRACE
        event = JobReleased(correlation_id="17", job_id="17", node="n1")
    assert event.trace == TRACE
    with tracing.span("POST /pulls", root=True):
        assert tracing.current() is None


def test_a_failure_is_told_by_its_code_and_never_by_its_message(keeper: Keeper) -> None:
    with pytest.raises(NotFoundError), tracing.span("pull", parent=TRACE):
        raise NotFoundError("there is no secret/image")
    with pytest.raises(KeyError), tracing.span("pull", parent=TRACE):
        raise KeyError("secret")
    assert [each.failures for each in keeper.spans] == [["not_found"], ["KeyError"]]


async def test_tasks_inherit_the_trace_and_a_cancelled_one_is_interrupted(keeper: Keeper) -> None:
    async def work() -> None:
        with tracing.span("inner"):
            await asyncio.Event().wait()

    tracing.serving("converter")
    with tracing.span("outer", parent=TRACE):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outer, inner = keeper.spans
    assert inner.parent == outer.traceparent
    assert inner.failures == ["interrupted"]
    assert {each.service for each in keeper.spans} == {"converter"}


@given(st.text(max_size=80) | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"))
def test_an_event_with_any_trace_is_read_and_what_is_none_is_dropped(text: str) -> None:
    event = JobReleased(correlation_id="17", job_id="17", node="n1", trace=text)
    assert event.trace == (text if tracing.is_traceparent(text) else None)
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-" + "0" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
        TRACE.upper(),
        TRACE + "-extra",
        TRACE + "\n",
    ],
)
def test_what_is_no_traceparent(text: str) -> None:
    assert not tracing.is_traceparent(text)
    assert tracing.is_traceparent(TRACE)
