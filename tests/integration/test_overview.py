"""The overview over real catalogs and gateways: what is counted, and for whose eyes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.gateway.auth.identity import Scope
from services.gateway.feed import ChangeFeed
from services.gateway.standing import overview as of_overview
from services.gateway.standing.event_waits import SAMPLE, EventWaits
from services.gateway.standing.overview import Overviews
from services.gateway.standing.site import LowLook, OfSystem, Standings
from services.gateway.stock.storage import LowDirectory
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import GATEWAY_EVENTS, GATEWAY_NODES, work_queues
from shared.catalog.interface import Catalog, Change
from shared.catalog.records import (
    Failure,
    JobRecord,
    Progress,
    StagingRecord,
    StagingState,
    staging_key,
)
from shared.errors import CatalogUnavailableError
from shared.models import utcnow
from shared.states import State
from tests.support.bus import Recorder, released
from tests.support.bus import soon as by_then
from tests.support.catalogs import node_record, opened, put, soon
from tests.support.conditions import eventually
from tests.support.lifecycle import ADA, ADMIN, BOB, NOBODY, image, store
from tests.support.two_gateways import pair

SYSTEMS = ("cluster", "alps")
REFUSED = Failure(code="registry_access_refused", message="no")


async def nothing_low() -> tuple[LowDirectory, ...]:
    return ()


@asynccontextmanager
async def overviews(
    catalog: Catalog, low: LowLook = nothing_low
) -> AsyncIterator[tuple[Overviews, Standings, EmbeddedBus]]:
    bus = EmbeddedBus(work_queues(SYSTEMS))
    feed = ChangeFeed(catalog)
    standings = Standings(catalog, bus, SYSTEMS, low)
    await bus.open(by_then())
    await feed.start()
    try:
        yield Overviews(feed, standings, EventWaits(), bus), standings, bus
    finally:
        await feed.stop()
        await standings.stop()
        await bus.close()


async def job(catalog: Catalog, name: str, system: str, nodes: str, **more: Any) -> None:
    record = JobRecord(
        key=name,
        job_id=name,
        system=system,
        requested=(),
        images=(),
        nodes=nodes,
        node_count=more.pop("count"),
        announced_by="slurm",
        announced_at=utcnow(),
        **more,
    )
    await catalog.jobs.change(name, put(record), soon())


async def told(catalog: Catalog, job_id: str, node: str, state: StagingState, **more: Any) -> None:
    record = StagingRecord(
        key=staging_key(job_id, node),
        job_id=job_id,
        node=node,
        announced_at=utcnow(),
        state=state,
        **{"system": "cluster", **more},
    )
    await catalog.stagings.change(record.key, put(record), soon())


async def test_the_database_counts_nodes_and_jobs_of_each_system(catalog: Catalog) -> None:
    for name, system, lost in (("a", "cluster", 0), ("b", "cluster", 1), ("c", "alps", 0)):
        record = node_record(name, node=name, system=system, lost=bool(lost))
        await catalog.nodes.change(name, put(record), soon())
    await job(catalog, "1", "cluster", "n[1-5]", count=5)
    await job(catalog, "2", "cluster", "n[6-7]", count=2)
    await job(catalog, "3", "cluster", "n[8-9]", count=2, released_at=utcnow())
    await job(catalog, "4", "alps", "", count=0, reserved_until=utcnow())
    await told(catalog, "1", "n1", StagingState.STAGED)
    await told(catalog, "1", "n2", StagingState.PENDING)
    await told(catalog, "1", "n3", StagingState.FAILED)
    await told(catalog, "2", "n6", StagingState.FAILED)
    await told(catalog, "2", "n7", StagingState.LOST)
    await told(catalog, "3", "n8", StagingState.FAILED, released=True)
    async with overviews(catalog) as (_, standings, _bus):
        found = await standings.now()
        assert found.systems is not None
        assert found.systems["cluster"] == OfSystem(
            alive=1,
            lost=1,
            jobs=2,
            job_nodes=7,
            # One was told, and two of the five not yet.
            pending=3,
            failed=2,
            lost_in_jobs=1,
            jobs_with_failures=2,
        )
        assert found.systems["alps"] == OfSystem(alive=1, jobs=1)
        both = found.jobs(SYSTEMS)
        assert both is not None
        assert (both.running, both.nodes) == (3, 7)
        assert (found.catalog_away, found.unsettled_seconds) == (False, 0.0)
    # What an earlier version has told is of no system, and does not make others pending.
    await told(catalog, "1", "n4", StagingState.STAGED, system=None)
    async with overviews(catalog) as (_, standings, _bus):
        found = await standings.now()
        assert found.systems is not None
        assert found.systems["cluster"].pending == 1


async def test_an_event_that_stays_in_the_outbox_is_noticed(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.standing.site.UNSETTLED", timedelta(0))
    sent = released("n1").model_copy(update={"time": utcnow() - timedelta(seconds=90)})
    record = node_record("n1", node="n1", system="alps")
    await catalog.nodes.change("n1", lambda _: Change(record, (sent,)), soon())
    async with overviews(catalog) as (made, _, _bus):
        overview = await made.current(ADMIN, SYSTEMS)
        [worry] = [each for each in overview.worries if each.code == "outbox_stuck"]
        assert "90 s" in worry.message
        codes = {each.code for each in (await made.current(ADA, SYSTEMS)).worries}
        assert "outbox_stuck" not in codes


async def under_way(catalog: Catalog) -> None:
    """A public pull, one of Ada's own, and what registries refused to others."""
    now = utcnow()
    later = {"due_at": now + timedelta(hours=1)}
    pulling: dict[str, Any] = {"current": None, "image_id": None, "begun": True, **later}
    await store(
        catalog,
        image("debian", state=State.PULLING, **pulling),
        image(
            "secret",
            owner=ADA.uid,
            state=State.PULLING,
            progress=Progress(stage=State.PULLING, waiting="waiting for registry.example"),
            **pulling,
        ),
        image(
            "waits",
            owner=ADA.uid,
            state=State.INIT,
            waiting_since=now - timedelta(seconds=700),
            **{**pulling, "begun": False},
        ),
        image("typo", state=State.FAILURE, failure=REFUSED, **pulling),
    )


async def test_pulls_are_counted_for_those_who_may_see_them(catalog: Catalog) -> None:
    await under_way(catalog)
    async with overviews(catalog) as (made, _, bus):
        await bus.consume(work_queues(SYSTEMS)[0], Recorder(), slots=1)
        counts, codes = {}, {}
        for who in (ADA, BOB, NOBODY, ADMIN):
            overview = await made.current(who, SYSTEMS)
            stages = {stage.state: stage for stage in overview.stages}
            counts[who.name] = (
                stages[State.INIT].waiting,
                stages[State.PULLING].pulls,
                overview.failed,
            )
            codes[who.name] = {worry.code for worry in overview.worries} - {"no_distributor"}
            assert (overview.queues is None) == (who is not ADMIN)
            assert (overview.dead_letters is None) == (who is not ADMIN)
            assert "secret" not in overview.model_dump_json()
        # The refusal is Ada's own, who asked for it.
        assert counts == {
            ADA.name: (1, 2, 1),
            BOB.name: (0, 1, 0),
            NOBODY.name: (0, 1, 0),
            ADMIN.name: (1, 2, 1),
        }
        waits = {"long_waits", "registry_waits"}
        assert codes == {ADA.name: waits, BOB.name: set(), NOBODY.name: set(), ADMIN.name: waits}
        nowhere = await made.current(ADMIN, ["alps"])
        assert sum(stage.pulls for stage in nowhere.stages) == 0
        assert nowhere.queues is not None
        assert "distributor.cluster" not in {queue.name for queue in nowhere.queues}
        oldest = {
            q.name: q.oldest_seconds for q in (await made.current(ADMIN, SYSTEMS)).queues or ()
        }
        assert oldest["converter.pulls"] is not None
        assert 700 <= oldest["converter.pulls"] < 800
        assert oldest["gateway.events"] == 0


async def test_many_who_ask_cost_as_one(catalog: Catalog) -> None:
    looks = 0

    async def low() -> tuple[LowDirectory, ...]:
        nonlocal looks
        looks += 1
        return (LowDirectory("cluster", 1, 2),)

    async with overviews(catalog, low) as (made, _, _bus):
        admins = await asyncio.gather(*(made.current(ADMIN, SYSTEMS) for _ in range(20)))
        assert all(each is admins[0] for each in admins)
        assert "image_directory_low" in {worry.code for worry in admins[0].worries}
        others = await asyncio.gather(*(made.current(who, SYSTEMS) for who in (ADA, BOB, NOBODY)))
        assert not any(
            worry.code == "image_directory_low" for each in others for worry in each.worries
        )
        assert looks == 1


async def test_without_the_catalog_admins_see_what_was_known_and_others_nothing(
    catalog: Catalog,
) -> None:
    await under_way(catalog)
    async with overviews(catalog) as (made, _, _bus):
        before = await made.current(ADMIN, SYSTEMS)
        assert "catalog_away" not in {worry.code for worry in before.worries}
        await catalog.close()

        async def noticed() -> bool:
            overview = await made.current(ADMIN, SYSTEMS)
            return "catalog_away" in {worry.code for worry in overview.worries}

        await eventually(noticed, within=15)
        overview = await made.current(ADMIN, SYSTEMS)
        assert overview.worries[0].code == "catalog_away"
        assert overview.failed == before.failed == 1
        assert overview.nodes is None
        with pytest.raises(CatalogUnavailableError):
            await made.current(BOB, SYSTEMS)


async def test_a_catalog_that_hangs_keeps_no_admin_waiting(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await under_way(catalog)
    async with overviews(catalog) as (made, _, _bus):
        before = await made.current(ADMIN, SYSTEMS)
        monkeypatch.setattr(of_overview, "FRESH_SECONDS", 0.0)
        monkeypatch.setattr(of_overview, "PATIENCE_SECONDS", 0.05)
        monkeypatch.setattr(ChangeFeed, "fresh", lambda _: asyncio.sleep(3600))
        async with asyncio.timeout(5):
            assert (await made.current(ADMIN, SYSTEMS)).failed == before.failed == 1


async def test_events_tell_how_long_their_queue_makes_them_wait() -> None:
    waits = EventWaits()
    taken = Recorder()
    handle = waits.of(GATEWAY_EVENTS.name, taken)
    assert waits.oldest(GATEWAY_EVENTS.name, 0) == 0
    assert waits.oldest(GATEWAY_EVENTS.name, 5) is None
    for age, low, high in ((40, 40, 50), (-40, 0, 0)):  # the second is of a clock that is ahead
        event = released("n1").model_copy(update={"time": utcnow() - timedelta(seconds=age)})
        await handle(event)
        oldest = waits.oldest(GATEWAY_EVENTS.name, 5)
        assert oldest is not None
        assert low <= oldest <= high
    assert len(taken.events) == 2


async def test_one_node_with_a_wrong_clock_makes_no_queue_late() -> None:
    waits = EventWaits()
    handle = waits.of(GATEWAY_NODES.name, Recorder())
    for age in (0, 0, 0, 600, 0, 0, 600):
        event = released("n1").model_copy(update={"time": utcnow() - timedelta(seconds=age)})
        await handle(event)
    assert (waits.oldest(GATEWAY_NODES.name, 5) or 0.0) < 5
    for _ in range(SAMPLE):
        event = released("n1").model_copy(update={"time": utcnow() - timedelta(seconds=40)})
        await handle(event)
    assert (waits.oldest(GATEWAY_NODES.name, 5) or 0.0) >= 40


async def test_two_gateways_tell_the_same_over_rest_and_to_prometheus(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/catalog.db"
    async with opened(url) as catalog:
        await under_way(catalog)
        async with pair(tmp_path, url) as two:
            admin = two.token(0, Scope.ADMIN)
            for running in (two.a, two.b):
                seen = (await running.bearer(admin, "/overview?system=cluster")).body
                # At their start they take up what an earlier life has left.
                assert sum(stage["pulls"] for stage in seen["stages"]) == 3
                assert seen["dead_letters"] == 0
                mine = (await running.bearer(two.token(2000), "/overview")).body
                assert mine["queues"] is None
                assert (await running.ask("/overview?system=nowhere")).status == 404

            async def figures() -> set[str]:
                address = f"{two.a.url}/metrics"
                async with aiohttp.ClientSession() as http, http.get(address) as answer:
                    return set((await answer.text()).splitlines())

            wanted = {
                'dray_pulls{state="INIT"} 3.0',
                'dray_pulls{state="FAILURE"} 1.0',
                'dray_pulls_waiting{state="INIT"} 3.0',
                'dray_queue_consumers{queue="converter.pulls"} 0.0',
                'dray_worries{code="no_converter"} 1.0',
                'dray_worries{code="bus_away"} 0.0',
                "dray_dead_letters 0.0",
            }

            async def told_all() -> bool:
                return wanted <= await figures()

            await eventually(told_all, within=10)
