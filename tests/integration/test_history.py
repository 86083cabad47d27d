"""Figures of each minute in the catalog: once from several gateways, kept, told, and forgotten."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from services.gateway.past import charts, history
from services.gateway.past.charts import Charts
from services.gateway.past.figures import OverviewFigures
from services.gateway.past.history import COUNTED, KEEP, STEP, STOOD, History, ending, key_of
from services.gateway.standing.worries import AWAY
from shared.api import HistoryView, Worry
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.catalog.standing_records import MinuteRecord
from shared.errors import CatalogUnavailableError
from shared.models import utcnow
from shared.states import State
from tests.support.catalogs import opened, put, soon
from tests.support.conditions import eventually
from tests.support.gateways import gateway
from tests.support.lifecycle import image
from tests.support.overviews import Overviewed, overview
from tests.support.two_gateways import pair

SIZE = 8192


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Stands still within a minute that is over; returns that minute."""
    now = utcnow() - 2 * STEP
    monkeypatch.setattr(history, "utcnow", lambda: now)
    return ending(now)


class Stood:
    """Somebody who knows some figures."""

    def __init__(self, **figures: float | None) -> None:
        self.known: Mapping[str, float | None] = figures

    async def figures(self) -> Mapping[str, float | None]:
        return self.known


class Absent:
    """Somebody who cannot look."""

    async def figures(self) -> Mapping[str, float | None]:
        message = "the database is away"
        raise CatalogUnavailableError(message)


def placed(name: str = "debian") -> tuple[ImageRecord, ImageRecord]:
    """A pull, before and after its end."""
    after = image(name, size=SIZE)
    return after.but(state=State.TRANSFER, current=None), after


def failed() -> tuple[ImageRecord, ImageRecord]:
    before, _ = placed("broken")
    return before, before.but(state=State.FAILURE)


async def shown(catalog: Catalog, hours: int = 1) -> HistoryView:
    return HistoryView.model_validate_json(await Charts(catalog).body(hours))


async def at(catalog: Catalog, minute: datetime) -> dict[str, float | None]:
    """What is told of the minute that ended then."""
    view = await shown(catalog, 1)
    place = view.times.index(minute)
    return {name: values[place] for name, values in view.series.items()}


async def test_several_gateways_write_a_minute_once(catalog: Catalog, clock: datetime) -> None:
    one = History(catalog, [Stood(images=3, dead_letters=None)], 10)
    two = History(catalog, [Absent(), Stood(images=4, nodes_alive=7)], 10)
    one.pull_changed(*placed())
    two.pull_changed(*placed("fedora"))
    two.pull_changed(*failed())
    for keeper in (one, two):
        await keeper.look(clock)
    await asyncio.gather(one.store(), two.store())
    await one.store()
    told = await at(catalog, clock)
    assert told["pulls_ready_total"] == 2
    assert told["pulls_failed_total"] == 1
    assert told["placed_bytes_total"] == 2 * SIZE
    assert told["images"] in {3, 4}, "whoever looked first"
    assert told["nodes_alive"] == 7
    assert told["dead_letters"] is None
    [record] = await catalog.history.find({}, limit=9)
    assert len(record.counted) == 2


@pytest.mark.usefixtures("clock")
async def test_what_is_said_twice_is_counted_once(catalog: Catalog) -> None:
    keeper = History(catalog, [], 10)
    keeper.pull_changed(*placed())
    await keeper.store()
    await keeper.store()
    keeper.pull_changed(*placed())
    await keeper.store()
    [record] = await catalog.history.find({}, limit=9)
    assert list(record.counted.values()) == [
        {"pulls_ready_total": 2, "placed_bytes_total": 2 * SIZE}
    ]


@pytest.mark.usefixtures("clock")
async def test_an_end_counts_and_nothing_else_does(catalog: Catalog) -> None:
    keeper = History(catalog, [], 10)
    before, after = placed()
    keeper.pull_changed(None, after)
    keeper.pull_changed(after, after)
    keeper.pull_changed(before, before)
    keeper.pull_changed(after.but(state=State.INIT), after)
    await keeper.store()
    [record] = await catalog.history.find({}, limit=9)
    assert list(record.counted.values()) == [{"pulls_ready_total": 1}], "it was there already"


async def test_minutes_without_a_gateway_are_gaps(catalog: Catalog) -> None:
    last = ending(utcnow()) - STEP
    for ago in (0, 3):
        keeper = History(catalog, [Stood(images=ago)], 10)
        await keeper.look(last - ago * STEP)
        await keeper.store()
    view = await shown(catalog, 2)
    assert view.step_seconds == 60
    assert len(view.times) == 120
    assert view.times[-1] >= last
    assert {b - a for a, b in zip(view.times, view.times[1:], strict=False)} == {STEP}
    assert set(view.series) == {*STOOD, *COUNTED}
    place = view.times.index(last)
    assert view.series["images"][place - 4 : place + 1] == (None, 3, None, None, 0)
    assert view.series["pulls_ready_total"][place - 4 : place + 1] == (None, 0, None, None, 0)


async def test_two_days_are_kept(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_PAGE", 7)
    last = ending(utcnow()) - STEP
    for ago in (timedelta(), KEEP - 2 * STEP, KEEP + 2 * STEP, 2 * KEEP):
        minute = last - ago
        record = MinuteRecord(key=key_of(minute), stood={"images": 1.0}, due_at=minute)
        await catalog.history.change(record.key, put(record), soon())
    keeper = History(catalog, [], 10)
    monkeypatch.setattr(history, "_BATCH", 1)
    await keeper.forget()
    kept = await catalog.history.find({}, limit=9)
    assert [record.key for record in kept] == [key_of(last - KEEP + 2 * STEP), key_of(last)]
    view = await shown(catalog, 48)
    assert len(view.times) == 48 * 60
    assert sum(value == 1 for value in view.series["images"]) == 2


async def test_while_the_catalog_is_away_minutes_wait(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = History(catalog, [Stood(images=5)], 10)
    monkeypatch.setattr(history, "MOST_WAITING", 3)
    last = ending(utcnow()) - STEP

    async def away(*_: object) -> None:
        message = "the database is away"
        raise CatalogUnavailableError(message)

    with monkeypatch.context() as patch:
        patch.setattr(catalog.history, "change", away)
        for ago in range(5, -1, -1):
            await keeper.look(last - ago * STEP)
            await keeper.store()
    assert await catalog.history.find({}, limit=9) == []
    await keeper.store()
    found = await catalog.history.find({}, limit=9)
    assert [record.key for record in found] == [key_of(last - ago * STEP) for ago in (2, 1, 0)]


async def test_an_answer_is_made_once_for_all_who_ask(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Charts(catalog)
    first = await told.body(1)
    keeper = History(catalog, [Stood(images=5)], 10)
    await keeper.look(ending(utcnow()) - STEP)
    await keeper.store()
    assert await told.body(1) is first
    monkeypatch.setattr(charts, "FRESH_SECONDS", 0.0)
    assert json.loads(await told.body(1))["series"]["images"].count(5) == 1


async def test_figures_of_an_overview() -> None:
    figures = await OverviewFigures(Overviewed(overview()), ("cluster",)).figures()
    assert figures == {
        "pulls_waiting": 5,
        "pulls_running": 4,
        "oldest_wait_seconds": 90.0,
        "queue_events": 12,
        "dead_letters": 2,
        "nodes_alive": 30,
        "nodes_lost": 1,
        "jobs_running": 4,
        "job_nodes_pending": 8,
        "job_nodes_failed": 3,
    }
    assert set(figures) < set(STOOD)


async def test_without_the_catalog_nothing_is_kept_of_pulls() -> None:
    """What was known last would look like minutes in which nothing moved."""
    away = Worry(code=AWAY, level="critical", message="the catalog is away")
    seen = overview().model_copy(update={"worries": (away,)})
    figures = await OverviewFigures(Overviewed(seen), ("cluster",)).figures()
    assert {figures[name] for name in ("pulls_waiting", "pulls_running")} == {None}
    assert figures["oldest_wait_seconds"] is None
    assert figures["queue_events"] == 12


async def test_gateways_that_start_have_the_history_and_tell_it_to_admins(
    tmp_path: Path, catalog_url: str
) -> None:
    minute = ending(utcnow()) - 2 * STEP
    async with opened(catalog_url) as catalog:
        keeper = History(catalog, [Stood(images=5)], 10)
        await keeper.look(minute)
        await keeper.store()
    async with pair(tmp_path, catalog_url) as two:
        for running in (two.a, two.b):
            said = await running.ask_locally("/history?hours=2")
            assert said.status == 200
            view = HistoryView.model_validate(said.body)
            assert view.series["images"][view.times.index(minute)] == 5
            again = await running.local.get(
                "http://localhost/api/v1/history?hours=2",
                headers={"If-None-Match": said.headers["ETag"]},
            )
            assert again.status == 304
        assert (await two.a.ask("/history")).code == "not_authenticated"
        assert (await two.a.bearer(two.token(1000), "/history")).code == "not_allowed"
        for hours in ("0", "49", "x"):
            assert (await two.a.ask_locally(f"/history?hours={hours}")).code == "invalid_input"


async def test_a_gateway_that_ends_stores_what_it_counted(tmp_path: Path) -> None:
    """The pull of a converter that never comes fails when it is given up."""
    site = {"pull": {"queue_timeout": 1.0, "lease": 1.0, "sweep_interval": 0.1, "max_tries": 1}}
    async with gateway(tmp_path / "data", site) as running:
        pull = await running.ask_locally("/pulls", "POST", {"reference": "debian:12"})

        async def over() -> bool:
            found = await running.ask_locally(f"/pulls/{pull.body['id']}")
            return bool(found.body["state"] == "FAILURE")

        await eventually(over, within=30)
    async with opened(_catalog_in(tmp_path)) as catalog:
        kept = await catalog.history.find({}, limit=9)
    counted = [part for record in kept for part in record.counted.values()]
    assert counted == [{"pulls_failed_total": 1}]


async def test_a_gateway_that_comes_back_has_the_figures_that_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # Minutes that are over soon.
        patch.setattr(history, "ending", lambda now: now + timedelta(seconds=0.3))
        async with gateway(tmp_path / "data"), opened(_catalog_in(tmp_path)) as catalog:

            async def kept() -> bool:
                return bool(await catalog.history.find({}, limit=1))

            await eventually(kept, within=30)
    async with opened(_catalog_in(tmp_path)) as catalog:
        [record, *_] = await catalog.history.find({}, limit=9)
    assert set(record.stood) == set(STOOD)
    async with gateway(tmp_path / "data") as running:
        view = HistoryView.model_validate((await running.ask_locally("/history")).body)
    place = [key_of(each) for each in view.times].index(record.key)
    told = {name: view.series[name][place] for name in STOOD}
    assert told == record.stood


def _catalog_in(directory: Path) -> str:
    return f"sqlite://{directory}/data/catalog.db"
