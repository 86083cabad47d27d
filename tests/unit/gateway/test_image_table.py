"""A table's pages, put together, are what sorting all that one may see gives; each image once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.access import listed
from services.gateway.auth.identity import Principal
from services.gateway.directory import Directory, Entry
from services.gateway.expiring import last_use
from services.gateway.stock.image_table import ImageTables, Page, Sort, TooManyTablesError, Wanted
from services.gateway.stock.pack_ledger import PackLedger
from shared.catalog.records import ImageRecord
from shared.models import utcnow
from tests.support.lifecycle import ADA, ADMIN, BOB, NOBODY, SYSTEM, image
from tests.support.shares import made

NOW = utcnow()
NAMES = ("alpine", "Debian", "fedora", "gentoo", "mint", "slackware")


@dataclass
class Memory:
    """A directory that needs no catalog."""

    directory: Directory

    async def fresh(self) -> None:
        await asyncio.sleep(0)


def tables(records: list[ImageRecord]) -> tuple[ImageTables, Directory]:
    directory = Directory()
    ledger = PackLedger(directory)
    for record in records:
        directory.note(record.key, record)
    return ImageTables(Memory(directory), ledger), directory


@st.composite
def records(draw: st.DrawFn) -> ImageRecord:
    owner = draw(st.sampled_from([None, 1000, 2000]))
    letter = draw(st.sampled_from("abc"))
    record = made(
        draw(st.sampled_from(NAMES)),
        letter,
        {"a": "d", "b": "e", "c": "de"}[letter],
        owner=owner,
        last=NOW - timedelta(days=draw(st.integers(0, 2))),
        days=draw(st.sampled_from([0, 9])),
        version=1,
    )
    private = owner is not None and draw(st.booleans())
    return record.but(private=private, pinned=draw(st.booleans()))


def value_of(ledger_of: Callable[[Entry], int | None], sort: Sort, entry: Entry) -> Any:
    never = NOW + timedelta(days=10_000)
    return {
        "size": entry.size,
        "name": entry.reference,
        "used": last_use(entry),
        "expires": never if entry.pinned else entry.expires_at or never,
        "ready": entry.ready_at,
        "shared": ledger_of(entry),
    }[sort]


@given(
    told=st.lists(records(), max_size=14, unique_by=lambda record: record.key),
    who=st.sampled_from([NOBODY, ADA, BOB, ADMIN]),
    sort=st.sampled_from(get_args(Sort)),
    descending=st.booleans(),
    limit=st.integers(1, 5),
    q=st.sampled_from(["", "deb", "bb", "/m", "nothing"]),
)
def test_pages_put_together_are_all_in_order(
    told: list[ImageRecord], who: Principal, sort: Sort, descending: bool, limit: int, q: str
) -> None:
    table, directory = tables(told)
    expected = [
        entry
        for entry in directory.following("", 99)
        if listed(who, entry) and (q in entry.reference.lower() or str(entry.image_id)[:2] == q)
    ]
    expected.sort(
        key=lambda entry: (value_of(lambda e: table.shared_bytes(who, e), sort, entry), entry.key),
        reverse=descending,
    )
    pages = asyncio.run(_all(table, who, Wanted((SYSTEM,), q, sort, descending, None, limit)))
    assert [entry.key for page in pages for entry in page.entries] == [e.key for e in expected]
    for page in pages:
        assert page.total == len(expected)
        assert page.bytes == sum(entry.size for entry in expected)


async def _all(table: ImageTables, who: Principal, wanted: Wanted) -> list[Page]:
    pages = [await table.page(who, wanted)]
    while (last := pages[-1].last) is not None:
        assert len(pages[-1].entries) == wanted.limit
        more = Wanted(wanted.systems, wanted.q, wanted.sort, wanted.descending, last, wanted.limit)
        pages.append(await table.page(who, more))
    return pages


async def test_an_image_that_comes_or_goes_neither_doubles_nor_hides_others() -> None:
    told = [image(f"image{number}", size=100) for number in range(9)]
    table, directory = tables(told)
    first = await table.page(ADMIN, Wanted((SYSTEM,), limit=4))
    gone, fresh = first.entries[-1], image("image35", size=100)
    directory.drop(gone.key)
    directory.note(fresh.key, fresh)
    second = await table.page(ADMIN, Wanted((SYSTEM,), limit=9, beyond=first.last))
    shown = [entry.key for entry in (*first.entries, *second.entries)]
    assert len(set(shown)) == len(shown)
    assert {record.key for record in told} <= set(shown)


async def test_what_others_keep_private_shares_nothing_with_the_public() -> None:
    secret, public = made("secret", "a", "de", owner=1000), made("public", "b", "d")
    table, directory = tables([secret, public])
    entry = directory.get(public.key)
    assert entry is not None
    assert table.shared_bytes(ADMIN, entry) == public.current.size  # type: ignore[union-attr]
    for who in (NOBODY, ADA, BOB):
        assert table.shared_bytes(who, entry) == 0


async def test_many_images_are_looked_at_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.stock.image_table._SLICE_SECONDS", 0.0)
    table, _ = tables([image(f"image{number}", size=number) for number in range(1500)])
    asking = asyncio.create_task(table.page(NOBODY, Wanted((SYSTEM,))))
    turns = 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert [entry.size for entry in (await asking).entries][:2] == [1499, 1498]
    assert turns >= 6


async def test_more_tables_than_can_be_made_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.stock.image_table.MOST_ASKING", 2)
    table, _ = tables([image()])
    said = await asyncio.gather(
        *(table.page(ADMIN, Wanted((SYSTEM,))) for _ in range(3)), return_exceptions=True
    )
    assert [type(each) for each in said].count(TooManyTablesError) == 1


async def test_one_user_who_asks_without_end_leaves_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.gateway.stock.image_table.MOST_ASKING", 4)
    monkeypatch.setattr("services.gateway.stock.image_table.MOST_OF_ONE", 2)
    table, _ = tables([image()])
    asking = [ADA] * 9 + [BOB, NOBODY]
    said = await asyncio.gather(
        *(table.page(who, Wanted((SYSTEM,))) for who in asking), return_exceptions=True
    )
    assert [type(each) for each in said[:9]].count(TooManyTablesError) == 7
    assert [isinstance(each, Page) for each in said[9:]] == [True, True]
    assert isinstance(await table.page(ADA, Wanted((SYSTEM,))), Page)
