"""The directory says what there is, in order, to whom it may be said, whatever comes when."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.access import listed, may_see
from services.gateway.auth.identity import Principal
from services.gateway.directory import Directory, Entry
from shared.catalog.records import Failure, ImageRecord
from shared.states import State
from tests.support.lifecycle import ADA, ADMIN, BOB, NOBODY, SYSTEM, image, target

NAMES = ("alpine", "debian", "fedora", "ubuntu")
REFUSED = Failure(code="registry_access_refused", message="it may be private")
WHO = (NOBODY, ADA, BOB, ADMIN)


@st.composite
def records(draw: st.DrawFn) -> ImageRecord:
    owner = draw(st.sampled_from([None, 1000, 2000]))
    record = image(
        draw(st.sampled_from(NAMES)),
        draw(st.sampled_from("ab")),
        owner=owner,
        version=draw(st.integers(1, 5)),
        state=draw(st.sampled_from([State.READY, State.PULLING, State.FAILURE])),
        private=owner is not None and draw(st.booleans()),
        allowed_uids=draw(st.sampled_from([(), (1000,), (2000,)])),
        failure=draw(st.sampled_from([None, REFUSED])),
    )
    return record.but(current=None) if draw(st.booleans()) else record


@given(st.lists(records(), max_size=30), st.sets(st.integers(0, 29)))
def test_it_is_what_a_search_of_all_records_would_find(
    told: list[ImageRecord], dropped: set[int]
) -> None:
    directory = Directory()
    truth: dict[str, ImageRecord] = {}
    for number, record in enumerate(told):
        directory.note(record.key, record)
        before = truth.get(record.key)
        if before is None or before.version < record.version:
            truth[record.key] = record
        if number in dropped:
            directory.drop(record.key)
            truth.pop(record.key, None)
    assert list(directory.keys()) == sorted(truth)
    for who in WHO:
        _agree(directory, truth, who)


def _agree(directory: Directory, truth: dict[str, ImageRecord], who: Principal) -> None:
    usable = [key for key in sorted(truth) if truth[key].current and listed(who, truth[key])]
    assert [each.key for each in directory.usable([SYSTEM], who, None)] == usable
    for position, key in enumerate(usable):
        later = [each.key for each in directory.usable([SYSTEM], who, key)]
        assert later == usable[position + 1 :]
    assert list(directory.usable(["another"], who, None)) == []
    queued = {
        key
        for key, record in truth.items()
        if may_see(who, record) and record.state is not State.READY
    }
    queue = directory.queue([SYSTEM], who)
    assert {each.key for each in queue} == queued
    under_way = [each.state.in_flight for each in queue]
    assert under_way == sorted(under_way, reverse=True), "what is under way comes first"
    for name in NAMES:
        reference = target(name).reference
        expected = {key for key, record in truth.items() if record.reference == reference}
        assert {each.key for each in directory.named(SYSTEM, "docker", reference)} == expected
    for letter in "ab":
        of_it = {
            key
            for key, record in truth.items()
            if record.current and record.current.image_id == letter * 64
        }
        assert {each.key for each in directory.of_image(SYSTEM, letter * 64)} == of_it


def _version(entry: Entry | None) -> int | None:
    return None if entry is None else entry.version


def test_an_older_version_changes_nothing_and_is_not_told() -> None:
    directory = Directory()
    told: list[tuple[int | None, int]] = []
    directory.listen(lambda before, after: told.append((_version(before), after.version)))
    for version in (2, 1, 2, 3):
        record = image("debian", version=version)
        directory.note(record.key, record)
    assert told == [(None, 2), (2, 3)]
