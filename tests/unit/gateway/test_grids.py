"""Letters of a job's nodes: whatever order they are told in, the newest of each counts."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.live.grids import (
    LETTERS,
    JobLetters,
    StagingOutline,
    change_of,
    changed_places,
)
from shared.catalog.records import JobRecord, StagingState
from shared.models import utcnow

NODES = ("n1", "n2", "n3")
STATES = st.sampled_from(list(StagingState))
HISTORIES = st.fixed_dictionaries({node: st.lists(STATES, max_size=4) for node in NODES})


def job(nodes: str = "n[1-3]") -> JobRecord:
    return JobRecord(
        key="17",
        job_id="17",
        system="cluster",
        requested=(),
        images=(),
        nodes=nodes,
        announced_by="slurm",
        announced_at=utcnow(),
    )


@settings(deadline=None)
@given(histories=HISTORIES, data=st.data())
def test_late_and_doubled_news_change_nothing(
    histories: dict[str, list[StagingState]], data: st.DataObject
) -> None:
    record = job()
    grid = JobLetters(record, NODES)
    told = [
        (node, StagingOutline(version=number, announced_at=record.announced_at, state=state))
        for node, states in histories.items()
        for number, state in enumerate(states, 1)
    ]
    for node, staging in data.draw(st.permutations(told + told)):
        grid.note(node, staging)
    latest = [[StagingState.PENDING, *histories[node]][-1] for node in NODES]
    assert grid.letters.decode() == "".join(LETTERS[state] for state in latest)
    assert grid.counts() == {state: latest.count(state) for state in StagingState}
    for node in NODES:
        assert grid.knows(node, len(histories[node]))
        assert not grid.knows(node, len(histories[node]) + 1)


def test_another_announcement_and_foreign_nodes_are_none_of_its_business() -> None:
    before, record = job(), job()
    grid = JobLetters(record, NODES)
    for version, staging in ((9, before), (1, record)):
        outline = StagingOutline(
            version=version, announced_at=staging.announced_at, state=StagingState.STAGED
        )
        grid.note("n2" if staging is record else "n1", outline)
        grid.note("elsewhere", outline)
    assert grid.letters == b"PSP"
    assert grid.is_of(record)
    assert not grid.is_of(before)
    assert not grid.is_of(record.but(nodes="n[1-4]"))


@given(st.text("PSIFLR", max_size=1000), st.data())
def test_a_change_makes_one_row_of_letters_the_other(after: str, data: st.DataObject) -> None:
    before = "".join(
        data.draw(st.sampled_from("PSIFLR")) if place % 97 == 0 else letter
        for place, letter in enumerate(after)
    )
    places = changed_places(before.encode(), after.encode())
    assert places == [place for place in range(len(after)) if before[place] != after[place]]
    change = change_of(places, after.encode())
    row = list(before)
    for place, letter in zip(change.at, change.letters, strict=True):
        row[place] = letter
    assert "".join(row) == after


def test_a_hundred_thousand_nodes_are_compared_in_no_time() -> None:
    before = b"P" * 100_000
    after = b"S" + before[1:-1] + b"F"
    began = time.process_time()
    for _ in range(10):
        assert changed_places(before, after) == [0, 99_999]
    assert time.process_time() - began < 1
