"""What the wire shows of records, and what it takes from clients."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.shifter.answers import encoded
from services.gateway.shifter.body import MAX_IDS, parse_readers
from services.gateway.shifter.view import pull_view, ready_view, short, usage_view
from shared.catalog.records import Failure, ImageRecord, UsageRecord
from shared.errors import InvalidInputError
from shared.events import Readers
from shared.states import State
from tests.support.transitions import NOW, in_transfer, ready, requested

FIELDS = [
    "id", "system", "itype", "tag", "status", "userACL", "groupACL",
    "ENV", "ENTRY", "WORKDIR", "LABELS", "last_pull", "status_message",
]  # fmt: skip
POLLED = {"MISSING", "INIT", "PENDING", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER"}


def with_config(**config: Any) -> ImageRecord:
    record = ready()
    assert record.current is not None
    changed = record.current.config.model_copy(update=config)
    return record.but(current=record.current.model_copy(update={"config": changed}))


@pytest.mark.parametrize("record", [ready(), requested(), in_transfer()])
def test_a_record_has_every_field(record: ImageRecord) -> None:
    assert sorted(pull_view(record)) == sorted(FIELDS)


def test_a_ready_record_says_what_it_is() -> None:
    record = with_config(
        env=("A=b", "PATH=/bin"), entrypoint=("/bin/run",), workdir="/w", labels={"a": "b"}
    )
    assert record.current is not None
    assert (
        ready_view(record)
        == pull_view(record)
        == {
            "id": record.image_id,
            "system": "cluster",
            "itype": "docker",
            "tag": ["debian:12"],
            "status": "READY",
            "userACL": [],
            "groupACL": [],
            "ENV": ["A=b", "PATH=/bin"],
            "ENTRY": ["/bin/run"],
            "WORKDIR": "/w",
            "LABELS": {"a": "b"},
            "last_pull": NOW.timestamp(),
            "status_message": "",
        }
    )


def test_what_is_absent_is_missing() -> None:
    view = ready_view(with_config(env=(), entrypoint=(), workdir="", labels={}))
    assert [view[key] for key in ("ENTRY", "WORKDIR", "LABELS")] == ["MISSING"] * 3
    view = pull_view(requested())
    assert [view[key] for key in ("id", "ENV", "ENTRY", "WORKDIR", "LABELS")] == ["MISSING"] * 5


def test_a_pull_time_has_a_decimal_point() -> None:
    assert b'"last_pull": 1767225600.0' in encoded(pull_view(ready()))


def test_a_failure_says_why() -> None:
    failed = requested().but(state=State.FAILURE, failure=Failure(code="denied", message="no"))
    assert (pull_view(failed)["status"], pull_view(failed)["status_message"]) == ("FAILURE", "no")


def test_a_pull_under_way_keeps_clients_polling() -> None:
    moving = [requested(), in_transfer()]
    assert {pull_view(record)["status"] for record in moving} == {"INIT", "TRANSFER"} < POLLED


def test_a_newer_pull_leaves_what_is_usable() -> None:
    again = ready().but(state=State.PULLING)
    assert ready_view(again)["status"] == "READY"
    assert pull_view(again)["status"] == "PULLING"


def test_readers_of_a_private_image_are_numbers() -> None:
    private = ready().but(private=True, owner=7, allowed_uids=(1000, 7), allowed_gids=(50,))
    view = ready_view(private)
    assert (view["userACL"], view["groupACL"]) == ([7, 1000], [50])
    assert list(ready_view(ready().but(owner=7))["userACL"]) == []


@pytest.mark.parametrize(
    ("reference", "written"),
    [
        ("docker.io/library/debian:12", "debian:12"),
        ("docker.io/group/tool:1", "group/tool:1"),
        ("ghcr.io/library/debian:12", "ghcr.io/library/debian:12"),
        ("host:5000/a:1", "host:5000/a:1"),
    ],
)
def test_tags_are_short(reference: str, written: str) -> None:
    assert short(reference) == written


def test_usage_has_the_fields_of_a_lookup() -> None:
    used = UsageRecord(
        key="u", system="cluster", hour="2026-01-01T00", uid=7, user="ada",
        reference="docker.io/library/debian:12", image_id="a" * 64, lookups=2, last=NOW,
    )  # fmt: skip
    assert usage_view(used) == {
        "user": "ada",
        "uid": 7,
        "system": "cluster",
        "type": "docker",
        "tag": "debian:12",
        "id": "a" * 64,
        "time": NOW.timestamp(),
    }


@pytest.mark.parametrize(
    ("body", "readers"),
    [
        (b"", None),
        (b" \n", None),
        (b"{}", None),
        (b'{"allowed_uids":"1000,4242"}', Readers(uids=(1000, 4242))),
        (b'{"allowed_uids":" 7 ,7","allowed_gids":"50"}', Readers(uids=(7,), gids=(50,))),
        (b'{"allowed_gids": ""}', Readers()),
        (b'{"other": 1}', None),
    ],
)
def test_readers_in_a_body(body: bytes, readers: Readers | None) -> None:
    assert parse_readers(body) == readers


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b'"7"', b'{"allowed_uids": 7}', b'{"allowed_uids": ["7"]}', b"[" * 50_000,
        b'{"allowed_uids": "ada"}', b'{"allowed_uids": "-1"}', b'{"allowed_gids": "4294967295"}',
        '{"allowed_uids": "\u0663"}'.encode(), b'{"allowed_uids": "' + b"9" * 5000 + b'"}',
        b"\xff",
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError, match="allowed_uids"):
        parse_readers(body)


def test_there_is_a_limit_to_readers() -> None:
    many = ",".join(str(uid) for uid in range(1, MAX_IDS + 2))
    with pytest.raises(InvalidInputError, match="more than"):
        parse_readers(json.dumps({"allowed_uids": many}).encode())


@given(st.lists(st.integers(0, (1 << 32) - 2), max_size=MAX_IDS, unique=True))
def test_ids_are_read_as_the_client_writes_them(ids: list[int]) -> None:
    body = json.dumps({"allowed_uids": ",".join(map(str, ids))}).encode()
    assert parse_readers(body) == Readers(uids=tuple(ids))


@given(st.binary(max_size=500))
def test_no_body_is_an_internal_error(body: bytes) -> None:
    with suppress(InvalidInputError):
        parse_readers(body)
