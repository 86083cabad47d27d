"""Where the bytes are: told by whoever looks after them, kept in the catalog, shown to admins."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway.stock import storage
from services.gateway.stock.storage import KEEP, LowDirectory, StorageBook
from shared.api import ImageDirectoryView, StorageView
from shared.bus.topology import GATEWAY_REPORTS
from shared.catalog.interface import Catalog
from shared.events import Counted, StorageReported
from shared.models import utcnow
from shared.settings.site import SystemSettings
from shared.storage_reports import Place, StorageReports
from tests.support.bus import Recorder
from tests.support.catalogs import opened, put, soon
from tests.support.conditions import eventually
from tests.support.inventory_site import Directory, inventory_bus
from tests.support.lifecycle import SYSTEM
from tests.support.lifecycle import store as store_images
from tests.support.shares import length, made
from tests.support.site import Site
from tests.support.two_gateways import pair

EARLIER = utcnow() - timedelta(minutes=10)
STORE = "0" * 16


def said(
    at: datetime, free: int, items: int | None = None, *, store: str | None = None
) -> StorageReported:
    return StorageReported(
        correlation_id="c",
        time=at,
        system=None if store else SYSTEM,
        store=store,
        counted=None if items is None else Counted(items=items, bytes=items * 100),
        free_bytes=free,
        reserve_bytes=1000,
    )


@pytest.fixture
def book(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageBook:
    monkeypatch.setattr(storage, "FRESH_SECONDS", 0.0)
    return StorageBook(catalog, {SYSTEM: SystemSettings(image_dir=tmp_path)}, 10)


async def directory(book: StorageBook) -> ImageDirectoryView:
    [view] = await book.directories()
    return view


async def test_the_newest_word_wins_whichever_comes_last(book: StorageBook) -> None:
    later = EARLIER + timedelta(minutes=5)
    await book.on_reported(said(EARLIER, 5000, 3))
    await book.on_reported(said(later, 4000))
    view = await directory(book)
    assert (view.images, view.bytes, view.free_bytes, view.at) == (3, 300, 4000, later)
    await book.on_reported(said(EARLIER + timedelta(minutes=1), 9000, 4))
    view = await directory(book)
    assert (view.images, view.free_bytes, view.at) == (4, 4000, later), "a count that was late"
    await book.on_reported(said(EARLIER, 5000, 3))
    assert await directory(book) == view


async def test_room_alone_says_nothing_of_what_was_never_counted(book: StorageBook) -> None:
    await book.on_reported(said(EARLIER, 5000))
    assert await book.directories() == ()


async def test_a_clock_that_is_ahead_does_not_win_for_ever(book: StorageBook) -> None:
    await book.on_reported(said(utcnow() + timedelta(days=1), 5000, 3))
    await book.on_reported(said(utcnow(), 4000, 2))
    view = await directory(book)
    assert (view.images, view.free_bytes) == (2, 4000)


async def test_a_directory_with_less_room_than_its_reserve_is_low(book: StorageBook) -> None:
    await book.on_reported(said(EARLIER, 1000, 3))
    assert await book.low() == ()
    await book.on_reported(said(utcnow(), 999))
    assert await book.low() == (LowDirectory(SYSTEM, 999, 1000),)


async def test_of_what_is_not_ours_nothing_is_told(book: StorageBook, catalog: Catalog) -> None:
    elsewhere = said(EARLIER, 1, 3).model_copy(update={"system": "gone"})
    await book.on_reported(elsewhere)
    assert await catalog.storage.find({}, limit=9) == []


async def test_what_nobody_tells_of_is_forgotten(book: StorageBook, catalog: Catalog) -> None:
    await book.on_reported(said(EARLIER, 5000, 3, store=STORE))
    await book.on_reported(said(EARLIER, 5000, 3))
    [kept, _] = await catalog.storage.find({}, limit=9)
    await catalog.storage.change(kept.key, put(kept.but(due_at=utcnow() - KEEP)), soon())
    await book.forget()
    assert len(await book.stores()) == 1
    assert await book.directories() == ()


async def test_stores_that_nobody_has_do_not_fill_the_catalog(
    book: StorageBook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MOST_STORES", 2)
    for number in range(4):
        await book.on_reported(said(EARLIER, 5000, 3, store=f"{number:016x}"))
    assert len(await catalog.storage.find({}, limit=9)) == 2
    await book.on_reported(said(utcnow(), 4000, 3, store=STORE))
    await book.on_reported(said(utcnow(), 4000, 3))
    assert [each.free_bytes for each in await book.stores()] == [4000, 5000], "one that is known"
    assert len(await book.directories()) == 1


def test_a_report_is_of_one_place() -> None:
    for both in ({}, {"system": SYSTEM, "store": STORE}):
        with pytest.raises(ValidationError, match="either system or store"):
            StorageReported.model_validate({"correlation_id": "c", "free_bytes": 1, **both})


async def test_a_distributor_tells_what_stands_in_its_directory(tmp_path: Path) -> None:
    async with inventory_bus() as bus:
        heard = Recorder()
        await bus.consume(GATEWAY_REPORTS, heard, slots=1)
        place = Directory(tmp_path, bus)
        place.put("a", size=8192)
        place.put("b", size=4096, age=0)
        (place.path / "of-others.squashfs").write_bytes(b"x")
        await place.upkeep.take_stock(SYSTEM)
        await eventually(lambda: bool(heard.events), within=10)
        [told] = heard.events
        assert isinstance(told, StorageReported)
        assert (told.system, told.store) == (SYSTEM, None)
        assert told.counted == Counted(items=2, bytes=12288)
        assert told.free_bytes > 0


async def test_what_is_not_there_is_not_told_of(tmp_path: Path) -> None:
    async with inventory_bus() as bus:
        heard = Recorder()
        await bus.consume(GATEWAY_REPORTS, heard, slots=1)
        rooms: list[float] = []
        places = [Place(tmp_path / "absent", rooms.append, SYSTEM), Place(tmp_path, rooms.append)]
        reports = StorageReports(bus, places, 5)
        reports.start()
        await eventually(lambda: bool(heard.events), within=10)
        await reports.stop()
    [told] = heard.events
    assert isinstance(told, StorageReported)
    assert (told.system, told.counted) == (None, None)
    assert told.store is not None
    assert rooms == [told.free_bytes]


async def test_a_whole_site_tells_its_admins(tmp_path: Path) -> None:
    nothing_fits = {"systems": {"cluster": {"reserve_bytes": 1 << 60}}}
    async with Site(tmp_path, nothing_fits) as site:
        site.images.mkdir()
        await site.up()
        view: dict[str, Any] = {}

        async def told() -> bool:
            nonlocal view
            view = (await site.ask("GET", "/api/v1/storage"))[1]
            return bool(view["stores"] and view["systems"])

        await eventually(told, within=30)
        [store], [directory] = view["stores"], view["systems"]
        assert (store["packs"], store["bytes"], directory["images"]) == (0, 0, 0)
        assert (directory["system"], directory["reserve_bytes"]) == ("cluster", 1 << 60)
        assert store["free_bytes"] > 0
        assert directory["free_bytes"] > 0

        async def worried() -> bool:
            worries = (await site.ask("GET", "/api/v1/overview"))[1]["worries"]
            return "image_directory_low" in {each["code"] for each in worries}

        await eventually(worried, within=30)


async def test_what_sharing_saves_is_the_same_at_every_gateway(
    tmp_path: Path, catalog_url: str
) -> None:
    async with opened(catalog_url) as catalog:
        one, two = made("debian", "a", "de"), made("fedora", "b", "df", owner=1000)
        await store_images(catalog, one, made("again", "a", "de"), two)
    async with pair(tmp_path, catalog_url) as running:
        for each in (running.a, running.b):
            view = StorageView.model_validate((await each.ask_locally("/storage")).body)
            assert view.sharing.images == 2
            assert view.sharing.layers == 4
            assert view.sharing.packs == 3
            assert view.sharing.image_bytes == 2 * length("d") + length("e") + length("f")
            assert view.sharing.pack_bytes == length("d") + length("e") + length("f")
        assert (await running.a.ask("/storage")).code == "not_authenticated"
        assert (await running.a.bearer(running.token(1000), "/storage")).code == "not_allowed"
