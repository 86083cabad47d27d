"""Many records at once, what has changed, and what may go: the same over both databases."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import BaseModel

from shared.catalog import mongo
from shared.catalog.interface import Catalog, Change, Changed
from shared.catalog.records import (
    NodeRecord,
)
from shared.models import utcnow
from tests.support.catalogs import (
    BackDoor,
    count_up,
    later,
    login_record,
    node_record,
    opened,
    put,
    released,
    soon,
)
from tests.support.conditions import eventually


async def test_numbers_and_truths_are_found_like_text(catalog: Catalog) -> None:
    for uid in (1000, 10000):
        record = login_record(uid)
        await catalog.logins.change(record.key, put(record), soon())
    found = await catalog.logins.find({"uid": "1000"}, limit=9)
    assert [record.uid for record in found] == [1000]


async def test_many_records_are_read_at_once(catalog: Catalog) -> None:
    for key in ("a", "b", "c"):
        await catalog.nodes.change(key, put(node_record(key, mounts=len(key))), soon())
    found = await catalog.nodes.get_many(["c", "nothing", "a"])
    assert sorted(record.key for record in found) == ["a", "c"]
    assert await catalog.nodes.get_many([]) == []
    with pytest.raises(ValueError, match="more than 1000"):
        await catalog.nodes.get_many([str(n) for n in range(1001)])


class Outline(BaseModel):
    """A few fields of a node."""

    system: str
    mounts: int


async def test_outlines_read_a_few_fields_and_hide_no_other_for_a_broken_one(
    catalog: Catalog, catalog_url: str
) -> None:
    for key in ("a", "b", "c"):
        await catalog.nodes.change(key, put(node_record(key)), soon())
    BackDoor(catalog_url).rewrite("b", mounts="many")
    outline = Outline(system="alps", mounts=0)
    assert await catalog.nodes.outlines(Outline, limit=10) == [("a", outline), ("c", outline)]
    assert await catalog.nodes.outlines(Outline, after="a", limit=10) == [("c", outline)]
    assert await catalog.nodes.outlines_of(Outline, ["c", "d"]) == [("c", outline)]


async def test_a_record_is_removed_only_as_it_was_seen(catalog: Catalog) -> None:
    await catalog.nodes.change("n", count_up("n"), soon())
    await catalog.nodes.change("n", count_up("n"), soon())
    assert not await catalog.nodes.remove("n", 1)
    assert await catalog.nodes.get("n") is not None
    assert await catalog.nodes.remove("n", 2)
    assert await catalog.nodes.get("n") is None
    assert not await catalog.nodes.remove("n", 2)


async def test_nothing_is_removed_before_its_events_are_published(catalog: Catalog) -> None:
    now = utcnow()
    await catalog.nodes.change("n", put(node_record("n", due_at=now), released()), soon())
    assert not await catalog.nodes.remove("n", 1)
    assert await catalog.nodes.forget(later(), 10) == 0
    [pending] = await catalog.pending(later(), 10)
    await catalog.settle(pending)
    assert await catalog.nodes.forget(later(), 10) == 1
    assert await catalog.nodes.get("n") is None


async def test_what_is_old_is_forgotten_oldest_first_and_in_batches(catalog: Catalog) -> None:
    now = utcnow()
    for number in range(5):
        record = node_record(f"n{number}", due_at=now - timedelta(hours=number))
        await catalog.nodes.change(record.key, put(record), soon())
    await catalog.nodes.change("never", put(node_record("never")), soon())
    before = now - timedelta(minutes=30)
    assert await catalog.nodes.forget(before, 3) == 3
    assert [each.key for each in await catalog.nodes.find({}, limit=9)] == ["n0", "n1", "never"]
    assert await catalog.nodes.forget(before, 3) == 1
    assert await catalog.nodes.forget(before, 3) == 0


async def test_changes_of_others_are_told_once_they_can_be_read(catalog_url: str) -> None:
    async with opened(catalog_url) as one, opened(catalog_url) as other:
        assert await one.nodes.changed_since(0) == ([], 0)
        await other.nodes.change("before", count_up("before"), soon())
        position = await one.nodes.position()
        for key in ("a", "b", "a"):
            await other.nodes.change(key, count_up(key), soon())
        told, position = await one.nodes.changed_since(position)
        versions = {each.key: each.version for each in told}
        assert versions.items() >= {("a", 2), ("b", 1)}
        # What is told again was told already.
        again, same = await one.nodes.changed_since(position)
        assert {each.key: each.version for each in again}.items() <= versions.items()
        assert same >= position
        await other.nodes.change("b", count_up("b"), soon())
        told, _ = await one.nodes.changed_since(position)
        assert Changed("b", 2) in told


async def test_what_was_told_is_not_told_for_ever(
    catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing has changed since: a poll costs nothing then."""
    monkeypatch.setattr(mongo, "OVERLAP_SECONDS", 1)
    async with opened(catalog_url) as one, opened(catalog_url) as other:
        login = login_record(1000)
        position = await one.nodes.position()
        await other.nodes.change("a", count_up("a"), soon())

        async def quiet() -> bool:
            nonlocal position
            # The server's time goes on with whatever is written, if only by itself.
            await other.logins.change(login.key, put(login), soon())
            told, position = await one.nodes.changed_since(position)
            return told == []

        told, position = await one.nodes.changed_since(position)
        assert told == [Changed("a", 1)]
        await eventually(quiet, within=30)
        await other.nodes.change("b", count_up("b"), soon())
        assert (await one.nodes.changed_since(position))[0] == [Changed("b", 1)]


async def test_no_change_is_missed_however_many_write_at_once(catalog_url: str) -> None:
    """A reader that follows positions while others write sees each record's last version."""
    async with opened(catalog_url) as one, opened(catalog_url) as other:
        seen: dict[str, int] = {}
        done = asyncio.Event()

        async def follow() -> None:
            position = 0
            last = False
            while True:
                told, position = await one.nodes.changed_since(position)
                seen.update({each.key: each.version for each in told})
                if last:
                    return
                last = done.is_set()
                await asyncio.sleep(0)

        async def write(number: int) -> None:
            catalog = (one, other)[number % 2]
            for _ in range(10):
                await catalog.nodes.change(f"n{number % 12}", count_up(f"n{number % 12}"), soon())

        following = asyncio.create_task(follow())
        await asyncio.gather(*map(write, range(24)))
        done.set()
        await following
        assert seen == {f"n{number}": 20 for number in range(12)}


async def test_many_change_at_once_but_for_those_that_others_changed(
    catalog: Catalog, catalog_url: str
) -> None:
    for key in ("a", "b"):
        await catalog.nodes.change(key, count_up(key), soon())

    def overtaken(before: NodeRecord | None) -> Change[NodeRecord] | None:
        BackDoor(catalog_url).overtake("b")
        return count_up("b")(before)

    told: list[str] = []
    catalog.listen(lambda record, _: told.append(f"{record.key} {record.version}"))
    steps = {
        "a": count_up("a"),
        "b": overtaken,
        "c": count_up("c"),
        "d": lambda _: None,
    }
    position = await catalog.nodes.position()
    assert await catalog.nodes.change_all(steps, soon()) == {"b"}
    assert sorted(told) == ["a 2", "c 1"]
    found = await catalog.nodes.find({}, limit=9)
    assert {record.key: record.mounts for record in found} == {"a": 2, "b": 1, "c": 1}
    changes, _ = await catalog.nodes.changed_since(position)
    assert {Changed("a", 2), Changed("c", 1)} <= set(changes)


async def test_many_changes_take_their_events_with_them_or_leave_both(
    catalog: Catalog, catalog_url: str
) -> None:
    told: list[str] = []
    catalog.listen(lambda _, events: told.extend(each.event.id for each in events))
    for key in ("a", "b", "c"):
        await catalog.nodes.change(key, count_up(key), soon())
    events = [released(str(number)) for number in range(5)]

    def overtaken(before: NodeRecord | None) -> Change[NodeRecord] | None:
        BackDoor(catalog_url).overtake("b")
        return count_up("b", events[2])(before)

    def created_by_another(before: NodeRecord | None) -> Change[NodeRecord] | None:
        assert before is None
        BackDoor(catalog_url).copy("a", "e")
        return count_up("e", events[3])(before)

    steps = {
        "a": count_up("a", events[0], events[1]),
        "b": overtaken,
        "c": count_up("c"),
        "d": count_up("d", events[4]),
        "e": created_by_another,
    }
    assert await catalog.nodes.change_all(steps, soon()) == {"b", "e"}
    expected = sorted(events[at].id for at in (0, 1, 4))
    assert sorted(told) == expected
    pending = await catalog.pending(later(), 100)
    assert sorted(each.event.id for each in pending) == expected
    await catalog.settle(*pending)
    await catalog.settle(*pending)
    assert await catalog.pending(later(), 100) == []


async def test_of_two_who_change_the_same_many_each_change_counts_once(catalog_url: str) -> None:
    async with opened(catalog_url) as one, opened(catalog_url) as other:
        keys = [f"n{number}" for number in range(20)]

        async def count(catalog: Catalog) -> None:
            left = set(keys)
            while left:
                left = await catalog.nodes.change_all({key: count_up(key) for key in left}, soon())

        await asyncio.gather(*(count(catalog) for catalog in (one, other) for _ in range(5)))
        found = await one.nodes.get_many(keys)
        assert [(record.mounts, record.version) for record in found] == [(10, 10)] * 20


async def test_many_are_removed_as_they_were_seen(catalog: Catalog) -> None:
    for key in ("a", "b"):
        await catalog.nodes.change(key, count_up(key), soon())
    await catalog.nodes.change("c", put(node_record("c"), released()), soon())
    asked = {"a": 1, "b": 2, "c": 1, "nothing": 1}
    assert await catalog.nodes.remove_all(asked, soon()) == 1
    assert sorted(each.key for each in await catalog.nodes.find({}, limit=9)) == ["b", "c"]
    assert await catalog.nodes.remove_all({}, soon()) == 0
