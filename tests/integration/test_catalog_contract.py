"""What the gateway relies on, the same over both databases."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from shared.catalog.collection import UnreadableRecordError
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import (
    ImageRecord,
    NodeRecord,
    PlacedImage,
    StagingRecord,
    StagingState,
    image_key,
    staging_key,
)
from shared.catalog.standing_records import MinuteRecord, StorageRecord, storage_key
from shared.deadline import Deadline
from shared.errors import ConflictError
from shared.image.recipe import ImageConfig, PackOptions
from shared.models import utcnow
from shared.states import State
from tests.support.catalogs import (
    BackDoor,
    count_up,
    later,
    node_record,
    opened,
    put,
    released,
    soon,
)


async def test_a_record_comes_back_equal_to_what_was_stored(catalog: Catalog) -> None:
    key = image_key("alps", "docker", "registry.example:5000/grüße/名前:v1")
    now = utcnow()
    record = ImageRecord(
        key=key,
        system="alps",
        reference="x",
        pack=PackOptions(),
        max_dead_share=0.15,
        state=State.READY,
        attempt=2**40,
        tries=1,
        pull_id="p",
        requested_at=now,
        requested_by="me",
        waiting_since=now,
        last_pull=datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC),
        due_at=datetime(2030, 1, 1, 12, 0, 0, 1, UTC),
        current=PlacedImage.model_validate(
            {
                "image_id": "a" * 64,
                "reference_digest": "sha256:" + "b" * 64,
                "manifest_digest": "sha256:" + "b" * 64,
                "config_digest": "sha256:" + "b" * 64,
                "pack": PackOptions(),
                "max_dead_share": 0.1,
                "content_digest": "c" * 64,
                "size": 2**63 - 1,
                "inodes": 1,
                "config": ImageConfig(
                    labels={"a.b/c": "1", "$set": "2", "": "3", "nul\0": "\0é\n"}
                ),
                "layers": ("sha256:" + "d" * 64,),
                "ready_at": now,
            }
        ),
    )
    stored = await catalog.images.change(key, put(record), soon())
    assert stored == record.model_copy(update={"version": 1})
    assert await catalog.images.get(key) == stored
    assert await catalog.images.find({"system": "alps"}, limit=2) == [stored]
    assert await catalog.images.due(datetime(2031, 1, 1, tzinfo=UTC), 2) == [stored]


@pytest.mark.parametrize("key", ["k" * 1024, "a.b$c/d'e\"f%g", "ключ/🗝️", "nul\0inside", " "])
async def test_any_key_is_found_again(catalog: Catalog, key: str) -> None:
    stored = await catalog.nodes.change(key, put(node_record(key), released()), soon())
    assert stored is not None
    assert await catalog.nodes.get(key) == stored
    changed = await catalog.nodes.change(key, count_up(key), soon())
    assert changed is not None
    assert (changed.key, changed.version, changed.mounts) == (key, 2, 1)
    [pending] = await catalog.pending(later(), 10)
    assert pending.key == key
    await catalog.settle(pending)
    assert await catalog.pending(later(), 10) == []


async def test_absent_is_none(catalog: Catalog) -> None:
    assert await catalog.images.get("nothing") is None
    assert await catalog.images.change("nothing", lambda _: None, soon()) is None
    assert await catalog.images.find({}, limit=10) == []


async def test_fifty_concurrent_changes_all_count_from_the_first_on(
    catalog_url: str,
) -> None:
    async with opened(catalog_url) as one, opened(catalog_url) as other:
        step = count_up("n")
        results = await asyncio.gather(
            *(each.nodes.change("n", step, Deadline.after(60)) for each in [one, other] * 25)
        )
        assert sorted(result.version for result in results if result) == list(range(1, 51))
        last = await one.nodes.get("n")
        assert last is not None
        assert (last.mounts, last.version) == (50, 50)


async def test_a_step_that_declines_leaves_the_record_and_the_outbox_alone(
    catalog: Catalog,
) -> None:
    stored = await catalog.nodes.change("n", count_up("n"), soon())
    assert await catalog.nodes.change("n", lambda _: None, soon()) == stored
    assert await catalog.nodes.get("n") == stored


async def test_a_step_that_raises_changes_nothing_and_the_catalog_goes_on(
    catalog: Catalog,
) -> None:
    stored = await catalog.nodes.change("n", count_up("n"), soon())

    def broken(_: NodeRecord | None) -> Change[NodeRecord]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await catalog.nodes.change("n", broken, soon())
    assert await catalog.nodes.get("n") == stored
    assert await catalog.nodes.change("n", count_up("n"), soon()) is not None


async def test_whoever_is_overtaken_each_time_ends_with_a_conflict(
    catalog: Catalog, catalog_url: str
) -> None:
    await catalog.nodes.change("n", count_up("n"), soon())
    tries = 0

    def overtaken(before: NodeRecord | None) -> Change[NodeRecord]:
        nonlocal tries
        tries += 1
        BackDoor(catalog_url).overtake("n")
        return count_up("n")(before) or pytest.fail("it always changes")

    with pytest.raises(
        ConflictError, match=r"nodes/n was changed by others \d+ times within 0.5 s"
    ):
        await catalog.nodes.change("n", overtaken, Deadline.after(0.5))
    assert tries > 2
    record = await catalog.nodes.get("n")
    assert record is not None
    assert record.mounts == 1


async def test_what_a_newer_version_added_to_a_record_is_left_alone(
    catalog: Catalog, catalog_url: str
) -> None:
    stored = await catalog.nodes.change("n", count_up("n"), soon())
    BackDoor(catalog_url).rewrite("n", invented_later={"a": [1]})
    assert await catalog.nodes.get("n") == stored
    assert await catalog.nodes.change("n", count_up("n"), soon())


async def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(
    catalog: Catalog, catalog_url: str
) -> None:
    for key in ("bad", "good"):
        record = node_record(key, due_at=utcnow())
        await catalog.nodes.change(key, put(record), soon())
    BackDoor(catalog_url).rewrite("bad", mounts="many")
    with pytest.raises(UnreadableRecordError, match=r"nodes/bad .* mounts: .* newer version"):
        await catalog.nodes.get("bad")
    assert [record.key for record in await catalog.nodes.find({}, limit=10)] == ["good"]
    assert [record.key for record in await catalog.nodes.due(later(), 10)] == ["good"]


async def test_find_filters_by_one_value_or_several(catalog: Catalog) -> None:
    states = [StagingState.PENDING, StagingState.STAGED, StagingState.FAILED]
    for number in range(12):
        job, node = f"job{number % 2}", f"n{number:02}"
        key = staging_key(job, node)
        record = StagingRecord(
            key=key, job_id=job, node=node, state=states[number % 3], announced_at=utcnow()
        )
        await catalog.stagings.change(key, put(record), soon())

    async def keys(**where: str | list[str]) -> list[str]:
        return [record.key for record in await catalog.stagings.find(where, limit=100)]

    assert await keys(job_id="job0", state="STAGED") == ["job0/n04", "job0/n10"]
    assert len(await keys(job_id="job0", state=[StagingState.STAGED, StagingState.FAILED])) == 4
    assert len(await keys(job_id="job1")) == 6
    assert await keys(job_id="job2") == []
    assert await keys(job_id="job1", state=[]) == []
    assert len(await catalog.stagings.find({}, limit=100)) == 12


async def test_a_filter_without_an_index_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="nodes has no index for \\['kernel'\\]"):
        await catalog.nodes.find({"kernel": "6.1.0"}, limit=1)


async def test_a_changed_field_moves_in_the_index(catalog: Catalog) -> None:
    await catalog.nodes.change("n", put(node_record("n", system="alps")), soon())
    await catalog.nodes.change("n", put(node_record("n", system="daint")), soon())
    assert await catalog.nodes.find({"system": "alps"}, limit=9) == []
    assert len(await catalog.nodes.find({"system": "daint"}, limit=9)) == 1


async def test_pages_by_key_visit_a_thousand_records_once(catalog: Catalog) -> None:
    numbers = list(range(1100))
    random.shuffle(numbers)
    keys = [f"{number:04}" for number in numbers]
    for start in range(0, len(keys), 100):
        await asyncio.gather(
            *(
                catalog.nodes.change(key, put(node_record(key)), soon())
                for key in keys[start : start + 100]
            )
        )
    seen: list[str] = []
    while page := await catalog.nodes.find(
        {"system": "alps"}, after=seen[-1] if seen else None, limit=300
    ):
        seen += [record.key for record in page]
    assert seen == sorted(keys)


async def test_due_gives_the_longest_overdue_first_and_nothing_early(catalog: Catalog) -> None:
    now = utcnow()
    for key, due_at in {
        "soon": now + timedelta(microseconds=1),
        "now": now,
        "first": now - timedelta(hours=1),
        "second": now - timedelta(microseconds=1),
        "never": None,
    }.items():
        await catalog.nodes.change(key, put(node_record(key, due_at=due_at)), soon())
    assert [each.key for each in await catalog.nodes.due(now, 10)] == ["first", "second", "now"]
    assert [each.key for each in await catalog.nodes.due(now, 1)] == ["first"]
    await catalog.nodes.change("first", put(node_record("first", due_at=None)), soon())
    assert [each.key for each in await catalog.nodes.due(now, 10)] == ["second", "now"]


async def test_two_catalogs_see_each_other_at_once(catalog_url: str) -> None:
    async with opened(catalog_url) as one, opened(catalog_url) as other:
        for number in range(1, 21):
            writer, reader = (one, other) if number % 2 else (other, one)
            await writer.nodes.change("n", count_up("n", released()), soon())
            seen = await reader.nodes.get("n")
            assert seen is not None
            assert seen.mounts == number
            assert len(await reader.pending(later(), 100)) == number


async def test_reopening_keeps_everything(catalog_url: str) -> None:
    async with opened(catalog_url) as catalog:
        due = node_record("n", due_at=utcnow())
        stored = await catalog.nodes.change("n", put(due, released()), soon())
        pending = await catalog.pending(later(), 10)
        assert len(pending) == 1
    async with opened(catalog_url) as catalog:
        await catalog.ping(soon())
        assert await catalog.nodes.get("n") == stored
        assert await catalog.nodes.due(later(), 10) == [stored]
        assert await catalog.nodes.find({"system": "alps"}, limit=10) == [stored]
        assert await catalog.pending(later(), 10) == pending


async def test_many_may_open_a_new_database_at_the_same_time(catalog_url: str) -> None:
    async def use(number: int) -> None:
        async with opened(catalog_url) as catalog:
            await catalog.nodes.change(f"n{number}", count_up(f"n{number}"), soon())

    await asyncio.gather(*map(use, range(8)))
    async with opened(catalog_url) as catalog:
        assert len(await catalog.nodes.find({}, limit=99)) == 8


async def test_figures_and_storage_come_back_as_they_were_stored(catalog: Catalog) -> None:
    now = utcnow()
    minutes = [
        MinuteRecord(
            key=f"2026-11-21T09:{minute:02}",
            stood={"oldest_wait_seconds": minute / 7},
            counted={"a": {"pulls_ready_total": 2**53}},
            due_at=now - timedelta(minutes=minute),
        )
        for minute in range(5)
    ]
    for record in reversed(minutes):
        await catalog.history.change(record.key, put(record), soon())
    found = await catalog.history.outlines(MinuteRecord, after=minutes[1].key, limit=2)
    assert [key for key, _ in found] == [minutes[2].key, minutes[3].key]
    assert found[0][1].stood == minutes[2].stood
    assert found[0][1].counted == minutes[2].counted
    assert await catalog.history.forget(now - timedelta(minutes=2.5), 9) == 2
    assert len(await catalog.history.find({}, limit=9)) == 3
    key = storage_key("directory", "cluster")
    room = {"items": 3, "bytes": 2**60, "counted_at": now, "free_bytes": 2**61, "at": now}
    place = StorageRecord.model_validate(
        {"key": key, "kind": "directory", "system": "cluster", **room}
    )
    stored = await catalog.storage.change(key, put(place), soon())
    assert await catalog.storage.find({}, limit=9) == [stored]
