"""Events are stored with the change that causes them, and leave the outbox when settled."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.catalog.interface import Catalog, PendingEvent
from shared.catalog.records import (
    JobRecord,
    Record,
)
from shared.deadline import Deadline
from shared.events import (
    MAX_EVENT_BYTES,
    Event,
    JobAllocated,
    MalformedEventError,
    NodeImage,
)
from shared.models import utcnow
from tests.support.catalogs import (
    count_up,
    later,
    node_record,
    opened,
    put,
    released,
    soon,
)


async def test_events_are_pending_oldest_first_until_they_are_settled(catalog: Catalog) -> None:
    events = [released(str(number)) for number in range(6)]
    await catalog.nodes.change("b", put(node_record("b"), events[0], events[1]), soon())
    await catalog.nodes.change("a", put(node_record("a"), events[2]), soon())
    job = JobRecord(
        key="j",
        job_id="j",
        system="alps",
        requested=(),
        images=(),
        nodes=(),
        announced_by="me",
        announced_at=utcnow(),
    )
    await catalog.jobs.change("j", put(job, events[3]), soon())
    middle = utcnow()
    await catalog.nodes.change("b", count_up("b", events[4], events[5]), soon())

    pending = await catalog.pending(later(), 100)
    assert [each.event for each in pending] == events
    assert [(each.collection, each.key) for each in pending[1:4]] == [
        ("nodes", "b"),
        ("nodes", "a"),
        ("jobs", "j"),
    ]
    assert await catalog.pending(later(), 3) == pending[:3]
    assert await catalog.pending(middle, 100) == pending[:4]

    for each in (pending[0], pending[0], pending[3], pending[4]):
        await catalog.settle(each)
    assert await catalog.pending(later(), 100) == [pending[1], pending[2], pending[5]]
    record = await catalog.nodes.get("b")
    assert record is not None
    assert record.version == 2, "settling is no change"


async def test_an_event_that_could_not_be_read_back_is_refused_with_its_change(
    catalog: Catalog,
) -> None:
    image = NodeImage(image_id="a" * 64, content_digest="b" * 64, size=1)
    event = JobAllocated(
        correlation_id="c", node="n", job_id="j", system="alps", images=(image,)
    ).model_copy(update={"images": (image,) * (MAX_EVENT_BYTES // 100)})
    with pytest.raises(MalformedEventError, match="exceeds"):
        await catalog.nodes.change("n", put(node_record("n"), event), soon())
    assert await catalog.nodes.get("n") is None
    assert await catalog.pending(later(), 10) == []


async def test_settling_while_changing_neither_loses_nor_revives_an_event(catalog_url: str) -> None:
    """One process changes and adds events; another settles what it sees, as fast as it can."""
    settled: list[str] = []
    added = [released(str(number)) for number in range(120)]
    done = asyncio.Event()

    async with opened(catalog_url) as writer, opened(catalog_url) as publisher:

        async def write(events: Sequence[Event]) -> None:
            for event in events:
                await writer.nodes.change("n", count_up("n", event), Deadline.after(60))

        async def publish() -> None:
            while True:
                last_round = done.is_set()
                pending = await publisher.pending(later(), 1000)
                for each in pending:
                    await publisher.settle(each)
                    settled.append(each.event.id)
                if last_round and not pending:
                    return

        publishing = asyncio.create_task(publish())
        await asyncio.gather(write(added[:60]), write(added[60:]))
        done.set()
        await publishing
        assert await writer.pending(later(), 10) == []
        record = await writer.nodes.get("n")
        assert record is not None
        assert (record.mounts, record.version) == (120, 120)
    assert sorted(settled) == sorted(event.id for event in added), "each seen exactly once"


async def test_the_listener_hears_of_this_process_s_changes_after_they_are_stored(
    catalog_url: str,
) -> None:
    heard: list[tuple[Record, tuple[PendingEvent, ...]]] = []

    def broken(_: Record, __: tuple[PendingEvent, ...]) -> None:
        raise ZeroDivisionError

    async with opened(catalog_url) as catalog, opened(catalog_url) as other:
        catalog.listen(broken)
        catalog.listen(lambda record, pending: heard.append((record, pending)))
        event = released()
        stored = await catalog.nodes.change("n", count_up("n", event), soon())
        await catalog.nodes.change("n", lambda _: None, soon())
        await other.nodes.change("n", count_up("n"), soon())
        assert heard == [(stored, (PendingEvent("nodes", "n", event),))]


async def test_a_cancelled_change_is_made_or_not_and_nothing_is_left_open(catalog_url: str) -> None:
    """Cancelled after every possible number of steps of the event loop."""
    async with opened(catalog_url) as catalog, opened(catalog_url) as other:
        heard: list[int] = []
        catalog.listen(lambda record, _: heard.append(record.version))
        for patience in range(60):
            change = asyncio.create_task(
                catalog.nodes.change("n", count_up("n", released()), soon())
            )
            for _ in range(patience):
                await asyncio.sleep(0.0001 if patience % 2 else 0)
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
            assert change.cancelled() or change.exception() is None
        # Another process is not kept out, and this one goes on, too.
        assert await other.nodes.change("n", count_up("n"), soon())
        assert await catalog.nodes.change("n", count_up("n"), soon())
        await catalog.close()
        record = await other.nodes.get("n")
        assert record is not None
        assert record.mounts == record.version
        # Every change that was made has its event and was told, cancelled or not.
        made = record.version - 2
        assert 0 < made < 60, "the test must cancel both before and after the write"
        assert len(await other.pending(later(), 100)) == made
        assert len(heard) == made + 1
