"""Every event on the wire and back, and everything that is no event of ours."""

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bus.delivery import OversizedEventError, pack_event
from shared.bus.interface import AgentQueue, WorkQueue
from shared.bus.topology import agent_queue, distributor_queue, work_queues
from shared.events import (
    MAX_EVENT_BYTES,
    AnyEvent,
    Counted,
    Event,
    ExpectedImage,
    ImageChanged,
    ImageConverted,
    ImageExpired,
    ImageExpireRequested,
    ImageLost,
    ImagePlaced,
    ImageUnchanged,
    InventoryExpected,
    InventoryFound,
    InventoryRequested,
    InventoryUnknown,
    JobAllocated,
    JobReleased,
    LayerProgress,
    LoginChecked,
    LoginRequested,
    MalformedEventError,
    NodeFailed,
    NodeHeartbeat,
    NodeImage,
    NodeStaged,
    PlacementRequested,
    PullEvent,
    PullFailed,
    PullProgressed,
    PullRequested,
    Readers,
    ReadersChanged,
    RefreshRequested,
    RemovalDecided,
    RemovalProposed,
    StorageReported,
    agent_key,
    decode_event,
    encode_event,
    new_id,
)
from shared.image.recipe import PackOptions
from shared.states import State
from tests.support.recipes import digest, small_recipe

KINDS: tuple[type[Event], ...] = get_args(get_args(AnyEvent)[0])

PULL: dict[str, Any] = {
    "correlation_id": "pull-1",
    "causation_id": "before",
    "key": "local/docker/docker.io/library/alpine:3",
    "attempt": 2,
}
JOB: dict[str, Any] = {"correlation_id": "42", "node": "node1", "job_id": "42"}
IMAGE = NodeImage(image_id="a" * 64, content_digest="b" * 64, size=8192)
EXAMPLES: tuple[Event, ...] = (
    PullRequested(
        **PULL,
        reference="docker.io/library/alpine:3",
        platform="linux/amd64",
        options=PackOptions(),
        max_dead_share=0.15,
    ),
    RefreshRequested(
        **PULL,
        reference="docker.io/library/alpine:3",
        platform="linux/amd64",
        known_digest=digest("a"),
    ),
    PullProgressed(
        **PULL,
        stage=State.PULLING,
        done=1,
        total=2,
        rate=0.5,
        layers=(LayerProgress(digest=digest("c"), done=1, total=2, cached=True),),
    ),
    ImageUnchanged(**PULL, reference_digest=digest("a")),
    ImageChanged(**PULL, reference_digest=digest("b")),
    ImageConverted(**PULL, recipe=small_recipe()),
    PlacementRequested(**PULL, system="local", recipe=small_recipe()),
    ImagePlaced(**PULL, system="local", image_id="a" * 64, content_digest="b" * 64, size=8192),
    PullFailed(**PULL, code="no_such_image", message="it isn't there: «gone»\n", retryable=True),
    ReadersChanged(
        correlation_id="acl",
        system="local",
        image_id="a" * 64,
        readers=Readers(uids=(1000,)),
        revision=1,
    ),
    ImageExpireRequested(correlation_id="expiry", system="local", image_id="a" * 64),
    RemovalProposed(correlation_id="expiry", system="local", image_id="a" * 64, mark="c" * 32),
    RemovalDecided(
        correlation_id="expiry", system="local", image_id="a" * 64, mark="c" * 32, remove=True
    ),
    ImageExpired(correlation_id="expiry", system="local", image_id="a" * 64),
    ImageLost(
        correlation_id="look",
        system="local",
        image_id="a" * 64,
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        message="it is not there",
    ),
    InventoryRequested(correlation_id="look", system="local", after="local/docker/a"),
    InventoryExpected(
        correlation_id="look",
        system="local",
        images=(
            ExpectedImage(image_id="a" * 64, size=1, ready_at=datetime(2026, 1, 1, tzinfo=UTC)),
        ),
        next="local/docker/b",
    ),
    InventoryFound(correlation_id="look", system="local", images=("a" * 64,)),
    InventoryUnknown(correlation_id="look", system="local", images=("a" * 64,)),
    LoginRequested(
        correlation_id="login", login_id="l", registry="registry.example.org", ticket="t" * 32
    ),
    LoginChecked(correlation_id="login", login_id="l", code="unauthorized", message="no"),
    JobAllocated(**JOB, system="local", images=(IMAGE,)),
    JobReleased(**JOB),
    NodeStaged(**JOB, seconds=0.25),
    NodeFailed(**JOB, code="mount_failed", message="no loop device"),
    NodeHeartbeat(
        correlation_id="node1",
        node="node1",
        system="local",
        kernel="6.1",
        mounter="loop",
        codecs=("gzip", "zstd"),
        mounts=3,
    ),
    StorageReported(
        correlation_id="room",
        system="local",
        counted=Counted(items=3, bytes=1 << 40),
        free_bytes=1 << 50,
        reserve_bytes=1 << 30,
    ),
)
KEYS: dict[type[Event], str] = {
    PlacementRequested: "placement.requested.local",
    ReadersChanged: "image.readers_changed.local",
    ImageExpireRequested: "image.expire_requested.local",
    RemovalDecided: "image.removal_decided.local",
    InventoryExpected: "inventory.expected.local",
    InventoryUnknown: "inventory.unknown.local",
    JobAllocated: "agent.node1",
    JobReleased: "agent.node1",
}


def fields_of(event: Event) -> dict[str, Any]:
    return dict(json.loads(encode_event(event)))


def decoded(fields: dict[str, Any]) -> AnyEvent:
    return decode_event(json.dumps(fields).encode())


def by_type(event: Event) -> str:
    return event.type


def test_there_is_an_example_of_every_event() -> None:
    assert {type(example) for example in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize("event", EXAMPLES, ids=by_type)
def test_what_is_sent_is_what_arrives(event: Event) -> None:
    arrived = decode_event(encode_event(event))
    assert arrived == event
    assert type(arrived) is type(event)


@pytest.mark.parametrize("event", EXAMPLES, ids=by_type)
def test_its_routing_key_meets_exactly_one_queue(event: Event) -> None:
    assert event.routing_key == KEYS.get(type(event), event.type)
    queues: list[WorkQueue | AgentQueue] = [
        *work_queues(["local", "other"]),
        agent_queue("node1"),
        agent_queue("node2"),
    ]
    assert sum(event.routing_key in queue.keys for queue in queues) == 1


@pytest.mark.parametrize("event", EXAMPLES, ids=by_type)
def test_what_a_newer_version_adds_is_left_alone(event: Event) -> None:
    assert decoded({**fields_of(event), "added_later": {"deep": [1]}}) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=by_type)
@pytest.mark.parametrize("version", [0, 2, "1.5", None])
def test_another_version_is_refused(event: Event, version: object) -> None:
    with pytest.raises(MalformedEventError, match=r"\bv\b"):
        decoded({**fields_of(event), "v": version})


@pytest.mark.parametrize("event", EXAMPLES, ids=by_type)
def test_every_required_field_is_missed_by_name(event: Event) -> None:
    for name, field in type(event).model_fields.items():
        if field.is_required():
            fields = fields_of(event)
            del fields[name]
            with pytest.raises(MalformedEventError, match=rf"\b{name}\b"):
                decoded(fields)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(MalformedEventError, match="made\\.up"):
        decoded({**fields_of(EXAMPLES[0]), "type": "made.up"})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'"pull.failed"', b"\xff\xfe", b"{}", b'{"type": 7}']
)
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedEventError) as caught:
        decode_event(body)
    assert caught.value.code == "malformed_event"
    assert not caught.value.retryable


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with pytest.raises(MalformedEventError):
        decode_event(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@settings(max_examples=300)
@given(event=st.sampled_from(EXAMPLES), data=st.data(), value=JSON)
def test_any_value_in_any_field_is_taken_or_refused_but_never_crashes(
    event: Event, data: st.DataObject, value: object
) -> None:
    fields = fields_of(event)
    fields[data.draw(st.sampled_from(sorted(fields)))] = value
    try:
        arrived = decoded(fields)
    except MalformedEventError:
        return
    assert decode_event(encode_event(arrived)) == arrived


@given(
    stage=st.sampled_from(State),
    done=st.integers(min_value=0, max_value=1 << 62),
    total=st.integers(min_value=0, max_value=1 << 62),
    rate=st.floats(min_value=0, max_value=1 << 62),
    moment=st.datetimes(timezones=st.just(UTC)),
)
def test_progress_survives_exactly(
    stage: State, done: int, total: int, rate: float, moment: datetime
) -> None:
    event = PullProgressed(**PULL, stage=stage, done=done, total=total, rate=rate, time=moment)
    assert decode_event(encode_event(event)) == event


def test_an_oversized_body_is_refused_before_it_is_parsed() -> None:
    body = encode_event(EXAMPLES[0])
    fitting = body.ljust(MAX_EVENT_BYTES)  # blanks behind JSON are still JSON
    assert decode_event(fitting) == EXAMPLES[0]
    with pytest.raises(MalformedEventError, match="exceeds"):
        decode_event(fitting + b" ")


def test_an_oversized_event_is_not_sent() -> None:
    recipe = small_recipe().model_copy(update={"superblock": "00" * MAX_EVENT_BYTES})
    with pytest.raises(OversizedEventError, match=str(MAX_EVENT_BYTES)):
        pack_event(ImageConverted.model_construct(**PULL, v=1, recipe=recipe))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node", "../node1"),
        ("node", "node one"),
        ("node", "*"),
        ("node", "n" * 254),
        ("job_id", "42/../7"),
        ("job_id", ""),
        ("system", "local.other"),
        ("system", "#"),
    ],
)
def test_names_that_could_be_keys_or_paths_of_others_are_refused(field: str, value: str) -> None:
    allocated = next(event for event in EXAMPLES if isinstance(event, JobAllocated))
    with pytest.raises(MalformedEventError, match=field):
        decoded({**fields_of(allocated), field: value})


@pytest.mark.parametrize("event", [e for e in EXAMPLES if isinstance(e, PullEvent)], ids=by_type)
@pytest.mark.parametrize("attempt", [0, -1, 1.5, "two"])
def test_an_attempt_is_a_counting_number(event: PullEvent, attempt: object) -> None:
    with pytest.raises(MalformedEventError, match="attempt"):
        decoded({**fields_of(event), "attempt": attempt})


@pytest.mark.parametrize("name", [kind.model_fields["type"].default for kind in KINDS])
def test_a_node_named_like_an_event_receives_none_of_it(name: str) -> None:
    last = name.rpartition(".")[2]
    assert agent_key(last) not in {event.routing_key for event in EXAMPLES}
    assert agent_key(name) != name


def test_a_system_has_its_own_queue_for_placements() -> None:
    placement = next(event for event in EXAMPLES if isinstance(event, PlacementRequested))
    assert placement.routing_key in distributor_queue("local").keys
    assert placement.routing_key not in distributor_queue("other").keys


def test_ids_are_never_the_same() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000
    assert EXAMPLES[0].id != EXAMPLES[1].id


def test_an_event_cannot_be_changed_on_its_way() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(EXAMPLES[0], "correlation_id", "another")  # noqa: B010 - mypy sees it, too
